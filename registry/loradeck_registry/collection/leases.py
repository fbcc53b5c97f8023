"""Leases: what a push, a pull or a server uses, or is about to use, kept from garbage collection until they end.

The rule that makes them safe: whoever needs an object first writes its lease, then looks whether a collection is
deleting that object, and if so waits until it is done, and only then looks whether the object is there. The collection
first says what it is about to delete and then reads the leases. Of the two one sees the other, whatever the order.
"""

import os
import re
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from loradeck_registry import layout
from loradeck_registry.aliases.log import caller
from loradeck_registry.changes import OVERLAP
from loradeck_registry.errors import LoradeckError, NotFoundError, UnavailableError
from loradeck_registry.log import decode, encode
from loradeck_registry.records import DeletingRecord, LeaseRecord
from loradeck_registry.stores.store import Store

TTL = 900.0
"""Seconds that a lease holds unless it is renewed."""
_POLL = 0.1


@dataclass(frozen=True)
class Held:
    """What one object of a lease keeps: manifest digests, with all their files, and blobs by hex digest.

    A lease that was renewed has two of them for a while.
    """

    key: str
    holder: str
    manifests: tuple[str, ...]
    blobs: tuple[str, ...]
    expires: datetime

    @property
    def lease(self) -> str:
        """The same for all objects of one lease."""
        return self.key.rpartition("-")[0]

    def live(self, now: datetime) -> bool:
        """Whether it counts; clocks may differ by OVERLAP."""
        return self.expires + OVERLAP > now


class Lease:
    """A lease of this process; a context manager that releases it. Safe for many threads.

    It holds until `ttl` seconds after it was taken or last renewed, whatever becomes of its process: what a killed one
    leaves ends by its time (and OVERLAP, by which clocks may differ), and the next collection removes it.
    """

    def __init__(
        self, store: Store, holder: str, manifests: Iterable[str], blobs: Iterable[str] = (), ttl: float = TTL
    ) -> None:
        """Written at once. Use `take`."""
        self._store = store
        self.holder = holder
        self.manifests = tuple(sorted(set(manifests)))
        self.blobs = tuple(sorted(set(blobs)))
        self.ttl = ttl
        self._identifier = uuid.uuid4().hex
        self._written: list[str] = []
        self._guard = threading.RLock()
        self._until = 0.0
        self.lapsed = False
        """Whether it was ever not in force between `take` and now; `renew` resets it."""
        self._write()

    @property
    def keys(self) -> set[str]:
        """Objects that it names itself; the files of its manifests are kept too."""
        files = {key(sha256) for sha256 in self.blobs for key in (layout.blob, layout.delta)}
        return {layout.manifest(digest) for digest in self.manifests} | files

    def renew(self) -> None:
        """Hold for `ttl` seconds from now, and wait for a collection that may have begun after the lease ended.

        Whether what it names is still there after it had ended (`lapsed` until then) is for the caller to look at.
        """
        with self._guard:
            late = self._late() or self.lapsed
            self._write()
            if late:
                wait_for_deletions(self._store, self.keys)
            self.lapsed = False

    def extend(self, manifests: Iterable[str] = (), blobs: Iterable[str] = ()) -> None:
        """Hold these too, for `ttl` seconds from now. Returns when that is in force, as `take` does."""
        with self._guard:
            more = (set(manifests) - set(self.manifests), set(blobs) - set(self.blobs))
            if not any(more):
                return
            self.manifests = tuple(sorted({*self.manifests, *more[0]}))
            self.blobs = tuple(sorted({*self.blobs, *more[1]}))
            self.lapsed |= self._late()
            self._write()
            wait_for_deletions(self._store, self.keys)

    def touch(self) -> None:
        """Renew if a third of the time has passed; cheap otherwise. A lease that has ended meanwhile is `lapsed`."""
        with self._guard:
            if self._late():
                self.lapsed = True
            elif time.monotonic() > self._until - self.ttl * 2 / 3:
                self._write()

    def in_force(self) -> bool:
        """Whether it has held without a break, with a third of its time to spare."""
        return not self.lapsed and time.monotonic() < self._until - self.ttl / 3

    def release(self) -> None:
        """End it. Idempotent; what cannot be deleted ends by its time."""
        with self._guard:
            while self._written:
                with suppress(LoradeckError):
                    self._store.delete(self._written.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _late(self) -> bool:
        return time.monotonic() >= self._until

    def _write(self) -> None:
        # A renewal is a further object, and the one before it stays for now: a listing sees at least one of them.
        begin = time.monotonic()
        key = layout.lease(self.holder, f"{self._identifier}-{time.time_ns():020d}")
        record = {
            "format": 1,
            "holder": self.holder,
            "manifests": self.manifests,
            "blobs": self.blobs,
            "expires": (datetime.now(UTC) + timedelta(seconds=self.ttl)).isoformat(),
        }
        self._store.put_if_absent(key, encode(record), fleeting=True)
        self._until = begin + self.ttl
        self._written.append(key)
        while len(self._written) > 2:
            # Who may not delete leaves it to end by its time.
            with suppress(LoradeckError):
                self._store.delete(self._written.pop(0))


def take(store: Store, holder: str, manifests: Iterable[str], blobs: Iterable[str] = (), *, ttl: float = TTL) -> Lease:
    """A new lease, in force: no collection deletes what it names from here on. May wait for one that does so now."""
    lease = Lease(store, _holder(holder), manifests, blobs, ttl)
    try:
        wait_for_deletions(store, lease.keys)
    except BaseException:
        lease.release()
        raise
    return lease


def read_leases(store: Store) -> list[Held]:
    """All leases in the store, ended ones too."""
    found = []
    for key, _ in store.keys(layout.LEASES):
        try:
            record = decode(store.get(key), key, LeaseRecord)
        except NotFoundError:
            continue
        found.append(_held(key, record))
    return found


def wait_for_deletions(store: Store, keys: set[str]) -> None:
    """Return when no collection is deleting any of `keys`. Raises UnavailableError if one stays for minutes."""
    deadline = time.monotonic() + 600
    while (busy := _deleting(store, keys)) is not None:
        if time.monotonic() > deadline:
            raise UnavailableError(f"a garbage collection ({busy}) has not finished; try again later")
        time.sleep(_POLL)


def _deleting(store: Store, keys: set[str]) -> str | None:
    for key, _ in store.keys(layout.QUARANTINE):
        if not key.endswith("/deleting.json"):
            continue
        try:
            record = decode(store.get(key), key, DeletingRecord)
        except NotFoundError:
            continue
        if datetime.fromisoformat(record["expires"]) + OVERLAP > datetime.now(UTC) and keys & set(record["keys"]):
            return key
    return None


def _held(key: str, record: dict[str, Any]) -> Held:
    return Held(
        key,
        str(record["holder"]),
        tuple(record["manifests"]),
        tuple(record["blobs"]),
        datetime.fromisoformat(record["expires"]),
    )


def _holder(text: str) -> str:
    """A part of a key that says who holds the lease."""
    return re.sub(r"[^A-Za-z0-9._@-]+", "-", text).strip(".-")[:100] or f"{_holder(caller())}-{os.getpid()}"
