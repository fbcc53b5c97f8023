"""Writes one-step problems with numbers of one digit (train.jsonl, test.jsonl), deterministic by seed."""

import argparse
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1] / "arithmetic"))

from templates import ITEMS, NAMES, TRAIN

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Problem:
    """One word problem; `answer` ends with '#### N'."""

    question: str
    answer: str
    operation: str
    a: int
    b: int


def draw(rng: random.Random) -> Problem:
    """A sum, a difference over zero, or a product, of numbers from 2 to 9, in a wording of the larger set."""
    operation = rng.choice("+-*")
    a, b = rng.randrange(2, 10), rng.randrange(2, 10)
    while operation == "-" and a <= b:
        a, b = rng.randrange(2, 10), rng.randrange(2, 10)
    result = {"+": a + b, "-": a - b, "*": a * b}[operation]
    question, closing = rng.choice(TRAIN[operation])
    slots = {"name": rng.choice(NAMES), "item": rng.choice(ITEMS["train"]), "a": a, "b": b, "sum": result}
    working = f"{a} {operation} {b} = <<{a}{operation}{b}={result}>>{result}."
    return Problem(question.format(**slots), f"{working} {closing.format(**slots)}\n#### {result}", operation, a, b)


def draw_sets(train: int, test: int, seed: int) -> dict[Split, list[Problem]]:
    """Both splits; no question is in them twice."""
    rng, problems = random.Random(f"sums-{seed}"), dict[str, Problem]()
    while len(problems) < train + test:
        problem = draw(rng)
        problems.setdefault(problem.question, problem)
    every = list(problems.values())
    return {"train": every[:train], "test": every[train:]}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and test.jsonl")
    parser.add_argument("--train", type=int, default=2000, help="training rows")
    parser.add_argument("--test", type=int, default=200, help="test rows")
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for split, rows in draw_sets(options.train, options.test, options.seed).items():
        text = "".join(json.dumps(vars(row)) + "\n" for row in rows)
        (options.out / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
