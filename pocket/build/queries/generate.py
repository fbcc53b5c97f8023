"""Writes questions on five small tables with their queries (train.jsonl, test.jsonl) and the tables (tables.sqlite)."""

import argparse
import json
import random
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parent))

from tables import TABLES, Table, build

Split = Literal["train", "test"]

FORMS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("How many {table} have the {group} {value}?", "Count the {table} with {group} {value}."),
     "SELECT COUNT(*) FROM {table} WHERE {group} = '{value}'"),
    (("Which {table} have the {group} {value}?", "Give the {key} of all {table} with {group} {value}."),
     "SELECT {key} FROM {table} WHERE {group} = '{value}'"),
    (("Which {table} have a {number} over {limit}?", "Give the {key} of all {table} with {number} over {limit}."),
     "SELECT {key} FROM {table} WHERE {number} > {limit}"),
    (("Which {table} have a {number} below {limit}?", "Give the {key} of all {table} with {number} below {limit}."),
     "SELECT {key} FROM {table} WHERE {number} < {limit}"),
    (("How many {table} have a {number} over {limit}?", "Count the {table} with {number} over {limit}."),
     "SELECT COUNT(*) FROM {table} WHERE {number} > {limit}"),
    (("What is the {number} of the {one} with {key} {name}?", "Give the {number} for {key} {name} in {table}."),
     "SELECT {number} FROM {table} WHERE {key} = '{name}'"),
    (("What is the highest {number} of {table} with {group} {value}?",),
     "SELECT MAX({number}) FROM {table} WHERE {group} = '{value}'"),
    (("What is the average {number} of {table} with {group} {value}?",),
     "SELECT AVG({number}) FROM {table} WHERE {group} = '{value}'"),
    (("Which {table} have the {group} {value} and a {number} over {limit}?",),
     "SELECT {key} FROM {table} WHERE {group} = '{value}' AND {number} > {limit}"),
)  # fmt: skip
"""Wordings, and the query that all of them ask for."""


@dataclass(frozen=True)
class Row:
    """A question on a table."""

    context: str
    question: str
    sql: str


def draw_row(rng: random.Random, table: Table) -> Row:
    """A question with values that the table may have."""
    wordings, query = rng.choice(FORMS)
    slots = {
        "table": table.name, "one": table.one, "key": table.key[0], "group": table.group[0],
        "number": rng.choice(table.numbers), "value": rng.choice(table.group[1]), "name": rng.choice(table.key[1]),
        "limit": rng.randrange(15, 95),
    }  # fmt: skip
    return Row(table.definition, rng.choice(wordings).format(**slots), query.format(**slots))


def says_something(database: sqlite3.Connection, query: str) -> bool:
    """Whether the query has an answer that an idle query has not: a row, and no 0 or NULL in it."""
    rows = database.execute(query).fetchall()
    return bool(rows) and all(value not in (0, None) for row in rows for value in row)


def draw_sets(train: int, test: int, seed: int) -> dict[Split, list[Row]]:
    """Both splits; no question is in them twice, tables take turns."""
    rng, rows, turn = random.Random(f"queries-{seed}"), dict[str, Row](), 0
    database = build(":memory:", seed)
    while len(rows) < train + test:
        row = draw_row(rng, TABLES[turn % len(TABLES)])
        if row.question not in rows and says_something(database, row.sql):
            rows[row.question] = row
            turn += 1
    every = list(rows.values())
    return {"train": every[:train], "test": every[train:]}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl, test.jsonl and tables.sqlite")
    parser.add_argument("--train", type=int, default=1600, help="training rows")
    parser.add_argument("--test", type=int, default=200, help="test rows")
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for split, rows in draw_sets(options.train, options.test, options.seed).items():
        text = "".join(json.dumps(vars(row)) + "\n" for row in rows)
        (options.out / f"{split}.jsonl").write_text(text, encoding="utf-8")
    (options.out / "tables.sqlite").unlink(missing_ok=True)
    build(options.out / "tables.sqlite", options.seed).close()


if __name__ == "__main__":
    main()
