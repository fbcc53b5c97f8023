"""Runs queries of models on an SQLite file: read only, with limits of time, rows and memory."""

import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradeck_registry.errors import InvalidError, NotFoundError

_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
"""What a query may do; anything else, pragmas and attaching files included, is refused as it is prepared."""
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "writefile", "readfile", "edit", "fts3_tokenizer"})
_LONGEST_VALUE = 1_000_000
_STEPS = 2_000
"""SQLite's own steps between two looks at the clock."""

Rows = Counter[tuple[Any, ...]]


@dataclass(frozen=True)
class Outcome:
    """Rows as a bag, or why there are none: `refused`, `time`, `rows`, or `error` (with SQLite's line in `detail`)."""

    rows: Rows | None
    failure: str = ""
    detail: str = ""


class Database:
    """An SQLite file, opened read only. Nothing that a query does can change it or reach another file."""

    def __init__(self, path: Path, *, seconds: float = 5.0, rows: int = 10_000) -> None:
        """Raises NotFoundError, or InvalidError for a file that is not an SQLite database."""
        if not path.is_file():
            raise NotFoundError(f"no database {path}", field="database")
        self.path, self.seconds, self.rows = path, seconds, rows
        self._deadline = 0.0
        self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            self._connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.DatabaseError as error:
            raise InvalidError(f"{path} is not an SQLite database: {error}", field="database") from None
        self._connection.execute("PRAGMA temp_store = MEMORY")
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        self._connection.set_authorizer(_authorize)
        self._connection.set_progress_handler(self._late, _STEPS)

    def run(self, query: str) -> Outcome:
        """Run one SELECT. Columns count in their order, their names do not; 1 and 1.0 are equal."""
        self._deadline = time.monotonic() + self.seconds
        try:
            cursor = self._connection.execute(query)
            if cursor.description is None:
                return Outcome(None, "error", "the query is empty")
            found = cursor.fetchmany(self.rows + 1)
        except sqlite3.Error as error:
            text = str(error)
            refused = "authoriz" in text or "prohibited" in text
            return Outcome(None, "refused" if refused else "time" if text == "interrupted" else "error", text)
        except (sqlite3.Warning, ValueError, OverflowError) as error:  # several statements, a NUL in the query
            return Outcome(None, "error", str(error))
        if len(found) > self.rows:
            return Outcome(None, "rows", f"more than {self.rows} rows")
        return Outcome(Counter(tuple(_plain(value) for value in row) for row in found))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _late(self) -> bool:
        return time.monotonic() > self._deadline


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _plain(value: Any) -> Any:
    """Values as they are compared: floats to nine digits, so that the order of a sum does not count."""
    return float(f"{value:.9g}") if isinstance(value, float) else value
