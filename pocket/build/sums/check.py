"""Measures the set of one-digit problems and fails when a promise of its data card is broken."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

Row = dict[str, object]


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def correct(row: Row) -> bool:
    """Whether numbers have one digit, and the working and '#### N' agree with the operation."""
    a, b = int(str(row["a"])), int(str(row["b"]))
    result = {"+": a + b, "-": a - b, "*": a * b}[str(row["operation"])]
    answer = str(row["answer"])
    told = f"<<{a}{row['operation']}{b}={result}>>{result}." in answer and answer.endswith(f"\n#### {result}")
    return told and 2 <= a <= 9 and 2 <= b <= 9 and result > 0


def fact(row: Row) -> str:
    """What has to be known: the two numbers and the operation."""
    return f"{row['a']} {row['operation']} {row['b']}"


def measure(train: list[Row], test: list[Row]) -> dict[str, object]:
    """All figures of the data card."""
    every, known = train + test, Counter(fact(row) for row in train)
    return {
        "rows": {"train": len(train), "test": len(test)},
        "operations": dict(sorted(Counter(str(row["operation"]) for row in test).items())),
        "duplicate_questions": len(every) - len({row["question"] for row in every}),
        "wrong_answers": sum(not correct(row) for row in every),
        "facts": {"all": len(known), "least_rows": min(known.values())},
        "test_facts_not_in_training": sum(fact(row) not in known for row in test),
    }


def violations(figures: dict[str, object]) -> list[str]:
    """Broken promises, in words."""
    names = ("duplicate_questions", "wrong_answers", "test_facts_not_in_training")
    return [f"{name} is {figures[name]}, not 0" for name in names if figures[name] != 0]


def main() -> int:
    """Print the figures as JSON; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with train.jsonl and test.jsonl")
    folder = parser.parse_args().folder
    figures = measure(read_rows(folder / "train.jsonl"), read_rows(folder / "test.jsonl"))
    print(json.dumps(figures, indent=1))
    broken = violations(figures)
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
