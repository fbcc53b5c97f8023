"""Writes the instructions in nine categories (train.jsonl, test.jsonl) and further sums (math.jsonl), same by seed.

The first 300 and the first 900 training rows are smaller sets of the same make: the scales of one study. math.jsonl has
sums alone, in the wordings of training, to tune a tuned model further.
"""

import argparse
import json
import random
import sys
from collections.abc import Collection
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


def draw_math(count: int, seed: int, taken: Collection[str]) -> list[Row]:
    """`count` sums and differences, none of the instructions `taken` and none twice."""
    rng = random.Random(f"instructions-math-{seed}")
    seen, rows = set(taken), list[Row]()
    while len(rows) < count:
        row = draw_row(rng, "train", "others", ("sum", "difference")[len(rows) % 2])
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
    parser.add_argument("--math", type=int, default=340, help="further sums")
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train, test = draw_split("train", options.train, options.seed), draw_split("test", options.test, options.seed)
    write_rows(train, options.out / "train.jsonl")
    write_rows(test, options.out / "test.jsonl")
    taken = {row.instruction for row in (*train, *test)}
    write_rows(draw_math(options.math, options.seed, taken), options.out / "math.jsonl")


if __name__ == "__main__":
    main()
