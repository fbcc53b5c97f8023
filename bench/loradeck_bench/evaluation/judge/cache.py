"""Replies of a judge kept on disk: the same question to the same model is paid for once."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from loradeck_registry.errors import PreconditionError


def cache_key(settings: dict[str, Any]) -> str:
    """SHA-256 of all that a reply depends on: endpoint, model, messages, sampling settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class ReplyCache:
    """A SQLite file that several runs may share; each reply is there once it is written."""

    def __init__(self, path: Path) -> None:
        """Raises PreconditionError if the file cannot be made or is something else."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._connection.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, text TEXT NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise PreconditionError(f"cannot use {path} as the judge's cache: {error}", reason="NOT_WRITABLE") from None

    def get(self, key: str) -> str | None:
        """The reply kept under `key`."""
        row = self._connection.execute("SELECT text FROM replies WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def put(self, key: str, text: str) -> None:
        """Keep a reply; the newest counts."""
        self._connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, text))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
