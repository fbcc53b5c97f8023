"""Tables with their rows: two columns of text and two of numbers each."""

import random
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "instructions"))

from words import COLOURS, DAYS, NAMES, OBJECTS, PLACES, TOPICS

ROWS = 24


@dataclass(frozen=True)
class Table:
    """A table: a text column that tells rows apart, a text column that groups them, and two columns of numbers."""

    name: str
    one: str
    key: tuple[str, tuple[str, ...]]
    group: tuple[str, tuple[str, ...]]
    numbers: tuple[str, str]

    @property
    def definition(self) -> str:
        """As SQL says it."""
        texts, numbers = (self.key[0], self.group[0]), self.numbers
        columns = [f"{name} TEXT" for name in texts] + [f"{name} INTEGER" for name in numbers]
        return f"CREATE TABLE {self.name} ({', '.join(columns)})"

    def rows(self, seed: int) -> Iterator[tuple[str, str, int, int]]:
        """Its rows; no two have the same key."""
        rng = random.Random(f"queries-{self.name}-{seed}")
        for key in rng.sample(self.key[1], min(ROWS, len(self.key[1]))):
            yield key, rng.choice(self.group[1]), rng.randrange(10, 100), rng.randrange(10, 100)


TABLES = (
    Table("workers", "worker", ("name", NAMES), ("place", PLACES), ("age", "wage")),
    Table("goods", "good", ("item", OBJECTS), ("colour", COLOURS), ("price", "weight")),
    Table("meetings", "meeting", ("host", NAMES), ("day", DAYS), ("guests", "minutes")),
    Table("plans", "plan", ("author", NAMES), ("topic", TOPICS), ("cost", "votes")),
    Table("parcels", "parcel", ("code", tuple(f"{a}{b}" for a in "KLMN" for b in "2345678")), ("sender", PLACES),
          ("size", "stamps")),
)  # fmt: skip


def build(path: Path | str, seed: int) -> sqlite3.Connection:
    """The tables with their rows in an SQLite file (`:memory:` for none)."""
    connection = sqlite3.connect(path)
    for table in TABLES:
        connection.execute(table.definition)
        connection.executemany(f"INSERT INTO {table.name} VALUES (?, ?, ?, ?)", table.rows(seed))
    connection.commit()
    return connection
