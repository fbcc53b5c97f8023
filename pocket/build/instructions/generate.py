"""Writes the instructions in nine categories (train.jsonl, test.jsonl); the same seed gives the same files.

The first 300 and the first 900 training rows are smaller sets of the same make: the scales of one study.
"""

import argparse
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from answers import ANSWERS
from wordings import WORDINGS, Split

CATEGORIES = tuple(dict.fromkeys(category for category, _ in WORDINGS))
KINDS = {category: [kind for of, kind in WORDINGS if of == category] for category in CATEGORIES}


@dataclass(frozen=True)
class Row:
    """One instruction with its answer."""

    instruction: str
    output: str
    category: str


def draw_row(rng: random.Random, split: Split, category: str, kind: str) -> Row:
    """One row of a category and kind."""
    slots, answer = ANSWERS[category, kind](rng)
    wording = rng.choice(WORDINGS[category, kind][split])
    return Row(wording.format(**slots), answer, category)


def draw_split(split: Split, count: int, seed: int) -> list[Row]:
    """`count` rows of a split, no instruction twice; categories take turns, and so do the kinds of each."""
    rng = random.Random(f"instructions-{split}-{seed}")
    seen, rows = set[str](), list[Row]()
    while len(rows) < count:
        category = CATEGORIES[len(rows) % len(CATEGORIES)]
        kinds = KINDS[category]
        row = draw_row(rng, split, category, kinds[len(rows) // len(CATEGORIES) % len(kinds)])
        if row.instruction not in seen:
            seen.add(row.instruction)
            rows.append(row)
    return rows


def write_rows(rows: list[Row], path: Path) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(vars(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and test.jsonl")
    parser.add_argument("--train", type=int, default=2700, help="training rows")
    parser.add_argument("--test", type=int, default=180, help="test rows")
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write_rows(draw_split("train", options.train, options.seed), options.out / "train.jsonl")
    write_rows(draw_split("test", options.test, options.seed), options.out / "test.jsonl")


if __name__ == "__main__":
    main()
