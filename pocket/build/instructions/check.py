"""Measures the instruction set and fails when a promise of its data card is broken."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parent))

from words import EVERY

Row = dict[str, str]
NINE = 9
SCALES = (300, 900, 2700)
_FILLED = re.compile(r"\b(?:" + "|".join(re.escape(word) for word in EVERY) + r")\b", re.IGNORECASE)


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wording(instruction: str) -> str:
    """An instruction without what it was filled with: words of the pools and numbers."""
    return re.sub(r"\d+", "#", _FILLED.sub("@", instruction))


def eight_grams(text: str) -> set[tuple[str, ...]]:
    """All runs of eight words."""
    tokens = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(tokens[i : i + 8]) for i in range(len(tokens) - 7)}


def most_apart(rows: Sequence[Row]) -> int:
    """By how many rows the largest and the smallest category differ."""
    counts = Counter(row["category"] for row in rows)
    return max(counts.values()) - (min(counts.values()) if len(counts) == NINE else 0)


def wrong_sums(rows: Sequence[Row]) -> int:
    """Answers of the form `a + b = c` that are wrong."""
    wrong = 0
    for row in rows:
        found = re.fullmatch(r"(\d+) ([+-]) (\d+) = (-?\d+)", row["output"])
        if found:
            a, b = int(found[1]), int(found[3])
            wrong += (a + b if found[2] == "+" else a - b) != int(found[4])
    return wrong


def measure(train: list[Row], test: list[Row], math: list[Row]) -> dict[str, object]:
    """All figures of the data card."""
    seen = set().union(*(eight_grams(row["instruction"]) for row in train))
    held = [gram for row in test for gram in eight_grams(row["instruction"])]
    every = train + test + math
    figures: dict[str, object] = {
        "rows": {"train": len(train), "test": len(test), "math": len(math)},
        "categories": dict(sorted(Counter(row["category"] for row in test).items())),
        "uneven": {str(count): most_apart(train[:count]) for count in SCALES},
        "duplicate_instructions": len(every) - len({row["instruction"] for row in every}),
        "shared_wordings": len({wording(r["instruction"]) for r in train} & {wording(r["instruction"]) for r in test}),
        "test_8grams_in_train_percent": round(100 * sum(gram in seen for gram in held) / len(held), 3),
        "wrong_sums": wrong_sums(every),
        "test_answers_in_train_percent": round(
            100 * mean(row["output"] in {other["output"] for other in train} for row in test), 1
        ),
    }
    for column in ("instruction", "output"):
        counts = [len(row[column].split()) for row in every]
        figures[f"{column}_words"] = {"min": min(counts), "mean": round(mean(counts), 1), "max": max(counts)}
    return figures


def violations(train: list[Row], test: list[Row], figures: dict[str, object]) -> list[str]:
    """Broken promises, in words."""
    broken = []
    if len(train) < SCALES[-1] or len(test) < 90:
        broken.append("fewer than 2700 train or 90 test rows")
    if any(len({row["category"] for row in rows}) != NINE for rows in (train, test)):
        broken.append("not nine categories")
    for count in SCALES:
        if most_apart(train[:count]) > 1:
            broken.append(f"the first {count} rows are uneven over the categories")
    for name in ("duplicate_instructions", "shared_wordings", "wrong_sums"):
        if figures[name] != 0:
            broken.append(f"{name} is {figures[name]}, not 0")
    if float(str(figures["test_8grams_in_train_percent"])) >= 1.0:
        broken.append("1 % or more of the test instructions' 8-grams occur in training")
    if any(
        not row["instruction"].strip() or not row["output"].strip() or "{" in row["instruction"] for row in train + test
    ):
        broken.append("an empty or unfilled row")
    return broken


def main() -> int:
    """Print the figures as JSON; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with train.jsonl and test.jsonl")
    folder = parser.parse_args().folder
    train, test, math = (read_rows(folder / f"{name}.jsonl") for name in ("train", "test", "math"))
    figures = measure(train, test, math)
    print(json.dumps(figures, indent=1))
    broken = violations(train, test, figures)
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
