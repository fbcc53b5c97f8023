"""Draws one-step word problems with their answers; ordered number pairs belong to one split only."""

import random
from dataclasses import dataclass
from typing import Literal

from templates import ITEMS, NAMES, TEST, TRAIN

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
