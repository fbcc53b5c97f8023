"""Aliases: append-only logs whose highest entry wins, and which are the audit trail."""

import getpass
import hashlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loradeck_registry import changes, layout
from loradeck_registry.errors import ConflictError, DamagedError, InvalidError, NotFoundError, PreconditionError
from loradeck_registry.log import NumberedLog
from loradeck_registry.records import AliasRecord
from loradeck_registry.secrets import check_no_secret
from loradeck_registry.stores.store import Store

_ATTEMPTS = 200


@dataclass(frozen=True)
class Weighted:
    """One revision that an alias points to, and its share of the callers, in (0, 1]."""

    revision: int
    digest: str
    weight: float


@dataclass(frozen=True)
class AliasEntry:
    """One move of an alias. `number` is its position in the log, `revision` and `digest` what it points to since.

    A weighted alias points to several revisions: `revision` is then the one with the largest share (of equals the
    newest), `targets` has all of them in order of revision, with shares that sum to 1.
    """

    name: str
    alias: str
    number: int
    revision: int
    digest: str
    who: str
    when: datetime
    why: str
    targets: tuple[Weighted, ...] = ()

    @property
    def weighted(self) -> bool:
        """Whether it points to more than one revision."""
        return len(self.targets) > 1

    @property
    def pointed(self) -> str:
        """What it points to, in words: `7`, or `7=0.9, 8=0.1`."""
        if not self.weighted:
            return str(self.revision)
        return ", ".join(f"{target.revision}={target.weight:.4g}" for target in self.targets)

    def draw(self, caller: str) -> Weighted:
        """The target for a caller: always the same for one caller while the weights stand; `""`: the largest share.

        When a share grows, callers move to it and none moves away from it (exactly so with two targets).
        """
        if not caller or not self.weighted:
            return next(target for target in self.targets if target.revision == self.revision)
        content = f"{self.name}@{self.alias}\0{caller}".encode()
        point = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64
        for target in self.targets:
            point -= target.weight
            if point < 0:
                return target
        return self.targets[-1]


class AliasLog:
    """The log of one alias of one name."""

    def __init__(self, store: Store, name: str, alias: str) -> None:
        self._store = store
        self._log = NumberedLog(store, layout.alias_log(name, alias), AliasRecord)
        self.name = name
        self.alias = alias

    def current(self) -> AliasEntry | None:
        """The entry in force, None if the alias was never set."""
        last = self._log.last()
        return self._entry(last) if last else None

    def history(self) -> list[AliasEntry]:
        """All entries, newest first."""
        return [self._entry(number) for number in range(self._log.last(), 0, -1)]

    def targets(self) -> list[int]:
        """Numbers of the revisions that the alias points to now."""
        now = self.current()
        return [target.revision for target in now.targets] if now else []

    def restorable(self) -> list[int]:
        """Numbers of the revisions that a rollback would point it to."""
        last = self._log.last()
        number = self._previous(last) if last else None
        return [target.revision for target in self._entry(number).targets] if number else []

    def move(
        self,
        targets: Sequence[Weighted],
        *,
        expect: int | None,
        who: str,
        why: str,
        check: Callable[[AliasEntry | None], None] | None = None,
    ) -> AliasEntry:
        """Point the alias at revisions that exist.

        `expect` is the revision it must point to now, 0 if it must not exist. `check` may refuse the move by raising;
        it is given the entry that this one follows directly. Raises ConflictError (ALIAS_MOVED) if it points
        elsewhere, or if another writer moves it in the same moment.
        """
        for attempt in range(_ATTEMPTS):
            last = self._log.last()
            now = self._entry(last) if last else None
            self._check(expect, now)
            if check is not None:
                check(now)
            if self._write(last + 1, _record(targets, who, why), conflict=expect is not None):
                return self._entry(last + 1)
            time.sleep(min(0.001 * attempt, 0.05))
        raise ConflictError(f"{self.name}@{self.alias} is being moved by too many writers at once; try again")

    def check(self, expect: int | None) -> AliasEntry | None:
        """The entry in force. Raises ConflictError (ALIAS_MOVED) unless it points to `expect`, as `move` does."""
        now = self.current()
        self._check(expect, now)
        return now

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
        for old in target.targets:
            if self._store.size(layout.revision(self.name, old.revision)) is None:
                raise PreconditionError(
                    f"{self.name}@{self.alias} pointed to revision {old.revision} before, which a garbage collection "
                    "has retired: move the alias to a revision that is there",
                    reason="REVISION_RETIRED",
                )
        entry = _record(target.targets, who, why or f"rollback from {now.pointed}")
        entry["restores"] = number
        self._write(now.number + 1, entry, conflict=True)
        return self._entry(now.number + 1)

    def _check(self, expect: int | None, now: AliasEntry | None) -> None:
        if expect is not None and expect != (now.revision if now else 0):
            raise self._conflict(expect, now)

    def _previous(self, number: int) -> int | None:
        """The entry that was in force before entry `number`, where a rollback counts as the entry it restored."""
        present = self._entry(number).targets
        while number > 0:
            while (restored := self._log.read(number).get("restores")) is not None:
                if restored >= number:
                    raise DamagedError(
                        f"entry {number} of {self.name}@{self.alias} restores a later one: it is damaged"
                    )
                number = restored
            number -= 1
            if number > 0 and self._entry(number).targets != present:
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
        targets = tuple(
            Weighted(int(target["revision"]), str(target["digest"]), float(target["weight"]))
            for target in record["targets"]
        )
        first = max(targets, key=lambda target: (target.weight, target.revision))
        return AliasEntry(
            name=self.name,
            alias=self.alias,
            number=number,
            revision=first.revision,
            digest=first.digest,
            who=str(record["who"]),
            when=datetime.fromisoformat(record["when"]),
            why=str(record["why"]),
            targets=targets,
        )


def shares(weights: Sequence[tuple[int, str, float]]) -> tuple[Weighted, ...]:
    """Targets from revision, digest and weight in any unit: in order of revision, weights as shares of their sum.

    Raises InvalidError for a weight that is not positive, or a revision twice.
    """
    total = sum(weight for _, _, weight in weights)
    numbers = [number for number, _, _ in weights]
    if (
        not weights
        or any(not 0 < weight < float("inf") for _, _, weight in weights)
        or len(set(numbers)) < len(numbers)
    ):
        raise InvalidError("give each revision once, with a weight above 0, as in 7=90 8=10", field="target")
    return tuple(Weighted(number, digest, weight / total) for number, digest, weight in sorted(weights))


def caller() -> str:
    """Who runs this process, for the log: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _record(targets: Sequence[Weighted], who: str, why: str) -> dict[str, Any]:
    check_no_secret({"who": who, "why": why}, "alias")
    return {
        "format": 1,
        "targets": [{"revision": t.revision, "digest": t.digest, "weight": t.weight} for t in targets],
        "who": who or caller(),
        "when": datetime.now(UTC).isoformat(),
        "why": why,
    }
