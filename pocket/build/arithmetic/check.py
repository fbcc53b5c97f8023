"""Measures the arithmetic set and fails when a promise of its data card is broken."""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path


def read_rows(path: Path) -> list[dict[str, object]]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def form(question: object) -> str:
    """A question with its numbers and capitalised names taken out, to compare wordings."""
    return re.sub(r"\d+", "#", re.sub(r"\b[A-Z][a-z]+\b", "@", str(question)))


def correct(row: dict[str, object]) -> bool:
    """Whether the working, the closing line and '#### N' agree with the operation."""
    a, b = int(str(row["a"])), int(str(row["b"]))
    result = {"+": a + b, "-": a - b, "*": a * b}[str(row["operation"])]
    answer = str(row["answer"])
    return f"<<{a}{row['operation']}{b}={result}>>{result}." in answer and answer.endswith(f"\n#### {result}")


def pair(row: dict[str, object]) -> tuple[str, object, object]:
    """Ordered numbers with their operation."""
    return str(row["operation"]), row["a"], row["b"]


def main() -> int:
    """Print the figures as JSON; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    train, test = read_rows(folder / "train.jsonl"), read_rows(folder / "test.jsonl")
    questions = [row["question"] for row in train + test]
    figures = {
        "rows": {"train": len(train), "test": len(test)},
        "operations": {
            "train": dict(sorted(Counter(str(row["operation"]) for row in train).items())),
            "test": dict(sorted(Counter(str(row["operation"]) for row in test).items())),
        },
        "duplicate_questions": len(questions) - len(set(questions)),
        "shared_wordings": len({form(row["question"]) for row in train} & {form(row["question"]) for row in test}),
        "shared_number_operation_pairs": len({pair(row) for row in train} & {pair(row) for row in test}),
        "wrong_answers": sum(not correct(row) for row in train + test),
    }
    print(json.dumps(figures, indent=1))
    zero = ("duplicate_questions", "shared_wordings", "shared_number_operation_pairs", "wrong_answers")
    broken = [name for name in zero if figures[name]] + (["rows"] if len(train) < 2000 or len(test) < 300 else [])
    for name in broken:
        print(f"broken: {name} is {figures[name]}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
