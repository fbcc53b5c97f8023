"""Writes the one-step arithmetic set (train.jsonl, test.jsonl) in GSM8K's answer style, deterministic by seed."""

import argparse
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parent))

from templates import ITEMS, NAMES, TEST, TRAIN  # noqa: E402

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Problem:
    """One word problem; `answer` ends with '#### N'."""

    question: str
    answer: str
    operation: str
    a: int
    b: int


def held_out(operation: str, a: int, b: int) -> bool:
    """Whether an ordered pair of numbers under an operation belongs to the test split (about one in six)."""
    return (a * 31 + b * 17 + ord(operation) * 7) % 6 == 0


def draw(rng: random.Random, split: Split) -> Problem:
    """One problem: sums up to 99, differences of numbers up to 60, products of factors from 2 to 12."""
    operation = rng.choice("++--*")
    while True:
        if operation == "*":
            a, b = rng.randrange(2, 13), rng.randrange(2, 13)
        else:
            a, b = rng.randrange(3, 61), rng.randrange(2, 40)
        if (operation == "-" and a <= b) or held_out(operation, a, b) != (split == "test"):
            continue
        break
    result = {"+": a + b, "-": a - b, "*": a * b}[operation]
    question, closing = rng.choice((TRAIN if split == "train" else TEST)[operation])
    slots = {"name": rng.choice(NAMES), "item": rng.choice(ITEMS[split]), "a": a, "b": b, "sum": result}
    working = f"{a} {operation} {b} = <<{a}{operation}{b}={result}>>{result}."
    return Problem(question.format(**slots), f"{working} {closing.format(**slots)}\n#### {result}", operation, a, b)


def draw_split(split: Split, count: int, seed: int) -> list[Problem]:
    """`count` different problems of a split."""
    rng, seen, rows = random.Random(f"arithmetic-{split}-{seed}"), set[str](), list[Problem]()
    while len(rows) < count:
        problem = draw(rng, split)
        if problem.question not in seen:
            seen.add(problem.question)
            rows.append(problem)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and test.jsonl")
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--seed", type=int, default=20260101)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", arguments.train), ("test", arguments.test)):
        rows = draw_split(split, count, arguments.seed)  # type: ignore[arg-type]
        text = "".join(json.dumps(vars(row)) + "\n" for row in rows)
        (arguments.out / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
