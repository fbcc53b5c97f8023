"""Writes sentences with their functional representation, deterministic by seed: train.jsonl, test.jsonl in forms that
training lacks, and familiar.jsonl, new sentences in the forms of training."""

import argparse
import json
import random
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forms import FORMS, SLOTS, Split

FUNCTIONS = tuple(FORMS)


@dataclass(frozen=True)
class Row:
    """One sentence."""

    sentence: str
    meaning: str


def draw_row(rng: random.Random, split: Split, function: str) -> Row:
    """A sentence of a function; its slots stand in the representation in the order of SLOTS."""
    form = rng.choice(FORMS[function][split])
    used = set(re.findall(r"\{(\w+)\}", form))
    values = {slot: rng.choice(choices) for slot, choices in SLOTS.items() if slot in used}
    inner = ", ".join(f"{slot}[{value}]" for slot, value in values.items())
    return Row(form.format(**values), f"{function}({inner})")


def draw_split(split: Split, count: int, seed: int) -> list[Row]:
    """`count` rows of a split, no sentence twice; functions take turns as long as they have new sentences."""
    return _draw(split, count, f"meanings-{split}-{seed}", ())


def draw_familiar(count: int, seed: int, train: Sequence[Row]) -> list[Row]:
    """`count` rows in the forms of training, none of whose sentences is in `train`."""
    return _draw("train", count, f"meanings-familiar-{seed}", [row.sentence for row in train])


def _draw(split: Split, count: int, seed: str, taken: Iterable[str]) -> list[Row]:
    rng = random.Random(seed)
    seen, rows, tries = set(taken), list[Row](), 0
    while len(rows) < count:
        row = draw_row(rng, split, FUNCTIONS[tries % len(FUNCTIONS)])
        tries += 1
        if row.sentence not in seen:
            seen.add(row.sentence)
            rows.append(row)
    return rows


def write_rows(rows: list[Row], path: Path) -> None:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(vars(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the three files")
    parser.add_argument("--train", type=int, default=1600, help="training rows")
    parser.add_argument("--test", type=int, default=200, help="test rows, and as many familiar ones")
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train = draw_split("train", options.train, options.seed)
    write_rows(train, options.out / "train.jsonl")
    write_rows(draw_familiar(options.test, options.seed, train), options.out / "familiar.jsonl")
    write_rows(draw_split("test", options.test, options.seed), options.out / "test.jsonl")


if __name__ == "__main__":
    main()
