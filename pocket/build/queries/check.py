"""Measures the set of questions with queries and fails when a promise of its data card is broken."""

import argparse
import json
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from statistics import mean

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def says_nothing(database: sqlite3.Connection, row: Row) -> bool:
    """Whether a query fails, or returns no row, a 0 or a NULL, so that a wrong one could easily equal it."""
    try:
        found = database.execute(row["sql"]).fetchall()
    except sqlite3.Error:
        return True
    return not found or any(value in (0, None) for one in found for value in one)


def measure(train: list[Row], test: list[Row], database: Path) -> dict[str, object]:
    """All figures of the data card."""
    every, asked = train + test, {row["sql"] for row in train}
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
        rows = sum(connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in tables)
        silent = sum(says_nothing(connection, row) for row in every)
    return {
        "rows": {"train": len(train), "test": len(test)},
        "tables": {"number": len(tables), "rows": rows},
        "test_rows_by_table": dict(sorted(Counter(row["context"].split()[2] for row in test).items())),
        "duplicate_questions": len(every) - len({row["question"] for row in every}),
        "queries_that_say_nothing": silent,
        "test_queries_not_in_training_percent": round(100 * mean(row["sql"] not in asked for row in test), 1),
        "query_words": round(mean(len(row["sql"].split()) for row in every), 1),
    }


def violations(figures: dict[str, object]) -> list[str]:
    """Broken promises, in words."""
    names = ("duplicate_questions", "queries_that_say_nothing")
    return [f"{name} is {figures[name]}, not 0" for name in names if figures[name] != 0]


def main() -> int:
    """Print the figures as JSON; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with train.jsonl, test.jsonl and tables.sqlite")
    folder = parser.parse_args().folder
    train, test = read_rows(folder / "train.jsonl"), read_rows(folder / "test.jsonl")
    figures = measure(train, test, folder / "tables.sqlite")
    print(json.dumps(figures, indent=1))
    broken = violations(figures)
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
