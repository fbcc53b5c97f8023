"""Aliases: append-only logs whose highest entry wins, and which are the audit trail."""

import getpass
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loradeck_registry import changes, layout
from loradeck_registry.errors import ConflictError, NotFoundError, PreconditionError, UnimplementedError
from loradeck_registry.log import NumberedLog
from loradeck_registry.store import Store

_ATTEMPTS = 200


@dataclass(frozen=True)
class AliasEntry:
    """One move of an alias. `number` is its position in the log, `revision` and `digest` what it points to since."""

    name: str
    alias: str
    number: int
    revision: int
    digest: str
    who: str
    when: datetime
    why: str


class AliasLog:
    """The log of one alias of one name."""

    def __init__(self, store: Store, name: str, alias: str) -> None:
        self._store = store
        self._log = NumberedLog(store, layout.alias_log(name, alias))
        self.name = name
        self.alias = alias

    def current(self) -> AliasEntry | None:
        """The entry in force, None if the alias was never set."""
        last = self._log.last()
        return self._entry(last) if last else None

    def history(self) -> list[AliasEntry]:
        """All entries, newest first."""
        return [self._entry(number) for number in range(self._log.last(), 0, -1)]

    def move(self, revision: int, digest: str, *, expect: int | None, who: str, why: str) -> AliasEntry:
        """Point the alias at a revision that exists.

        `expect` is the revision it must point to now, 0 if it must not exist. Raises ConflictError (ALIAS_MOVED) if it
        points elsewhere, or if another writer moves it in the same moment.
        """
        for attempt in range(_ATTEMPTS):
            last = self._log.last()
            now = self._entry(last) if last else None
            if expect is not None and expect != (now.revision if now else 0):
                raise self._conflict(expect, now)
            if self._write(last + 1, _record(revision, digest, who, why), conflict=expect is not None):
                return self._entry(last + 1)
            time.sleep(min(0.001 * attempt, 0.05))
        raise ConflictError(f"{self.name}@{self.alias} is being moved by too many writers at once; try again")

    def rollback(self, *, who: str, why: str) -> AliasEntry:
        """Point the alias at the revision that it pointed to before its present one, as one more entry.

        Raises NotFoundError if it was never set, PreconditionError if it has pointed to one revision only.
        """
        now = self.current()
        if now is None:
            raise NotFoundError(f"{self.name} has no alias {self.alias!r} to roll back", reason="ALIAS_NOT_FOUND")
        number = self._previous(now.number)
        if number is None:
            raise PreconditionError(
                f"{self.name}@{self.alias} has nothing before revision {now.revision} to roll back to",
                reason="NO_PREVIOUS_REVISION",
            )
        target = self._entry(number)
        entry = _record(target.revision, target.digest, who, why or f"rollback from {now.revision}")
        entry["restores"] = number
        self._write(now.number + 1, entry, conflict=True)
        return self._entry(now.number + 1)

    def _previous(self, number: int) -> int | None:
        """The entry that was in force before entry `number`, where a rollback counts as the entry it restored."""
        present = self._entry(number).revision
        while number > 0:
            while (restored := self._log.read(number).get("restores")) is not None:
                number = int(restored)
            number -= 1
            if number > 0 and self._entry(number).revision != present:
                return number
        return None

    def _write(self, number: int, record: dict[str, Any], *, conflict: bool) -> bool:
        changes.mark(self._store, self.name, self.alias)
        if self._log.append(number, record):
            return True
        if conflict:
            raise self._conflict(None, self._entry(number))
        return False

    def _conflict(self, expect: int | None, now: AliasEntry | None) -> ConflictError:
        is_now = f"points to revision {now.revision} (set by {now.who})" if now else "does not exist"
        expected = "" if expect is None else f", not {expect}" if expect else ", but was expected not to exist"
        return ConflictError(
            f"{self.name}@{self.alias} {is_now}{expected}: moved by another; look at its history and try again",
            reason="ALIAS_MOVED",
            metadata={"revision": str(now.revision if now else 0)},
        )

    def _entry(self, number: int) -> AliasEntry:
        record = self._log.read(number)
        targets = record["targets"]
        if len(targets) != 1:
            raise UnimplementedError(
                f"{self.name}@{self.alias} is a weighted alias; weighted aliases are not implemented yet"
            )
        return AliasEntry(
            name=self.name,
            alias=self.alias,
            number=number,
            revision=int(targets[0]["revision"]),
            digest=str(targets[0]["digest"]),
            who=str(record["who"]),
            when=datetime.fromisoformat(record["when"]),
            why=str(record["why"]),
        )


def caller() -> str:
    """Who runs this process, for the log: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _record(revision: int, digest: str, who: str, why: str) -> dict[str, Any]:
    return {
        "format": 1,
        "targets": [{"revision": revision, "digest": digest, "weight": 1.0}],
        "who": who or caller(),
        "when": datetime.now(UTC).isoformat(),
        "why": why,
    }
