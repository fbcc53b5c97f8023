"""Members of a fleet: the live servers on a registry, each known by a record that it renews."""

import re
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from loradeck_registry import layout
from loradeck_registry.changes import OVERLAP
from loradeck_registry.errors import LoradeckError, NotFoundError
from loradeck_registry.log import decode, encode
from loradeck_registry.records import MemberRecord
from loradeck_registry.stores.store import Store

TTL = 30.0
"""Seconds after its last renewal that a server counts as alive."""
_FORGOTTEN = timedelta(hours=1)
"""Records that ended this long ago are removed by whoever comes by."""


@dataclass(frozen=True)
class Member:
    """A server as its newest record tells of it. `beat` is another number after each renewal."""

    id: str
    base: str
    since: datetime
    beat: int
    ttl: float
    expires: datetime

    def live(self, now: datetime) -> bool:
        """Whether it may be alive; clocks may differ by OVERLAP."""
        return self.expires + OVERLAP > now


class Membership:
    """This process's place among the members. `join` and `renew` block; all methods are for one thread at a time."""

    def __init__(self, store: Store, holder: str, base: str, ttl: float = TTL) -> None:
        """`holder` says which server this is, to people; `base` what it serves. Nothing is written before `join`."""
        self.id = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', holder).strip('.-')[:80]}-{uuid.uuid4().hex[:6]}"
        self._store = store
        self._base = base
        self._ttl = ttl
        self._since = datetime.now(UTC)
        self._written: list[str] = []

    def join(self) -> None:
        """Be a member from now on, and clear away what servers long gone have left. Raises as a write does."""
        self.renew()
        forget(self._store)

    def renew(self) -> None:
        """Stay one for `ttl` seconds from now. Raises as a write does."""
        now = datetime.now(UTC)
        key = layout.server(self.id, time.time_ns())
        record = {
            "format": 1,
            "base": self._base,
            "since": self._since.isoformat(),
            "ttl": self._ttl,
            "expires": (now + timedelta(seconds=self._ttl)).isoformat(),
        }
        self._store.put_if_absent(key, encode(record), fleeting=True)
        self._written.append(key)
        # The one before stays for now: a listing sees at least one of them.
        while len(self._written) > 2:
            with suppress(LoradeckError):
                self._store.delete(self._written.pop(0))

    def leave(self) -> None:
        """Be none any more, at once. Idempotent; what cannot be deleted ends by its time."""
        while self._written:
            with suppress(LoradeckError):
                self._store.delete(self._written.pop())


def members(store: Store) -> list[Member]:
    """Servers that may be alive, by id. A killed one is among them for `ttl` seconds and OVERLAP."""
    now = datetime.now(UTC)
    found = (_read(store, identifier, beat) for identifier, beat in sorted(beats(store).items()))
    return [member for member in found if member is not None and member.live(now)]


def beats(store: Store) -> dict[str, int]:
    """The newest beat of every server that has left a record, by id; reads no record."""
    newest: dict[str, int] = {}
    for identifier, number in _records(store):
        newest[identifier] = max(newest.get(identifier, 0), number)
    return newest


def forget(store: Store) -> None:
    """Remove the records of servers that ended long ago, as far as that is allowed."""
    oldest = time.time_ns() - int(_FORGOTTEN.total_seconds() * 1e9)
    with suppress(LoradeckError):
        for identifier, number in _records(store):
            if number < oldest:
                store.delete(layout.server(identifier, number))


def _records(store: Store) -> list[tuple[str, int]]:
    """Id and beat of every record."""
    names = (name.removesuffix(".json").rpartition(".") for name in store.entries(layout.SERVERS))
    return [(identifier, int(number)) for identifier, _, number in names if identifier and number.isdecimal()]


def _read(store: Store, identifier: str, beat: int) -> Member | None:
    key = layout.server(identifier, beat)
    try:
        record: dict[str, Any] = decode(store.get(key), key, MemberRecord)
    except NotFoundError:
        # Renewed twice meanwhile, or gone: the next look tells.
        return None
    return Member(
        identifier,
        str(record["base"]),
        datetime.fromisoformat(record["since"]),
        beat,
        float(record["ttl"]),
        datetime.fromisoformat(record["expires"]),
    )
