"""Measures the question-answering set and fails when a promise of its data card is broken."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

COLUMNS = ("context", "question", "short_answer", "long_answer")
LIMITS = {"context": (40, 110), "short_answer": (2, 16), "long_answer": (30, 80)}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def words(text: str) -> list[str]:
    """Lower-cased words and numbers."""
    return re.findall(r"[a-z0-9.]*[a-z0-9]", text.lower())


def sentences(row: dict[str, str]) -> Iterable[str]:
    """Every sentence of every column, normalised."""
    for column in COLUMNS:
        for part in re.split(r"(?<=[.?!])\s+", row[column]):
            yield " ".join(words(part))


def eight_grams(row: dict[str, str]) -> set[tuple[str, ...]]:
    """All runs of eight words inside one column."""
    return {
        tuple(tokens[i : i + 8])
        for tokens in (words(row[column]) for column in COLUMNS)
        for i in range(len(tokens) - 7)
    }


def span_share(rows: list[dict[str, str]]) -> float:
    """Mean share of short-answer words that occur in the context."""
    return mean(mean(word in words(row["context"]) for word in words(row["short_answer"])) for row in rows)


def measure(train: list[dict[str, str]], test: list[dict[str, str]]) -> dict[str, object]:
    """All figures of the data card."""
    seen = set().union(*(eight_grams(row) for row in train))
    held = [gram for row in test for gram in eight_grams(row)]
    shared = {text for row in train for text in sentences(row)} & {text for row in test for text in sentences(row)}
    figures: dict[str, object] = {
        "rows": {"train": len(train), "test": len(test)},
        "duplicate_contexts": len(train) + len(test) - len({row["context"] for row in train + test}),
        "shared_sentences": len(shared),
        "test_8grams_in_train_percent": round(100 * sum(gram in seen for gram in held) / len(held), 3),
        "answer_words_in_context_percent": round(100 * span_share(train + test), 1),
        "question_kinds": dict(sorted(Counter(row["kind"] for row in test).items())),
        "sectors_shared": len({row["sector"] for row in train} & {row["sector"] for row in test}),
    }
    for column in COLUMNS:
        counts = [len(row[column].split()) for row in train + test]
        figures[f"{column}_words"] = {"min": min(counts), "mean": round(mean(counts), 1), "max": max(counts)}
    return figures


def violations(train: list[dict[str, str]], test: list[dict[str, str]], figures: dict[str, object]) -> list[str]:
    """Broken promises, in words."""
    broken = []
    if len(train) < 1200 or len(test) < 240:
        broken.append("fewer than 1200 train or 240 test rows")
    for name in ("duplicate_contexts", "shared_sentences", "sectors_shared"):
        if figures[name] != 0:
            broken.append(f"{name} is {figures[name]}, not 0")
    if float(str(figures["test_8grams_in_train_percent"])) >= 1.0:
        broken.append("1 % or more of the test set's 8-grams occur in training")
    for column, (low, high) in LIMITS.items():
        if any(not low <= len(row[column].split()) <= high for row in train + test):
            broken.append(f"{column}: a row outside {low} to {high} words")
    return broken


def main() -> int:
    """Print the figures as JSON; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with train.jsonl and test.jsonl")
    folder = parser.parse_args().folder
    train, test = read_rows(folder / "train.jsonl"), read_rows(folder / "test.jsonl")
    figures = measure(train, test)
    print(json.dumps(figures, indent=1))
    broken = violations(train, test, figures)
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
