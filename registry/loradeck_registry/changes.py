"""Change markers: a cheap place for watchers to look, whose cost does not grow with the number of adapters."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loradeck_registry import layout
from loradeck_registry.errors import LoradeckError
from loradeck_registry.log import decode, encode
from loradeck_registry.reference import check_name
from loradeck_registry.stores.store import Store

OVERLAP = timedelta(minutes=2)
"""How far apart the clocks of writers and readers, and a marker and its entry, may be."""
_SCAN_LIMIT = timedelta(hours=2)
"""Up to here the minutes are looked up one by one, further back the folder of minutes is listed."""


@dataclass(frozen=True)
class Change:
    """Something about `name` may have changed around `time`: read it again. `alias` is None for a new revision.

    With `move` an alias is going to be moved, and every live server is asked to prepare for it (`fleet.records`).
    """

    id: str
    name: str
    alias: str | None
    time: datetime
    move: str | None = None


def mark(store: Store, name: str, alias: str | None = None, *, move: str | None = None) -> datetime:
    """Leave a marker. Written before the entry it announces, so that no crash can lose the announcement."""
    now = datetime.now(UTC)
    identifier = f"{now:%S%f}-{uuid.uuid4().hex[:12]}"
    record = {"name": name, "alias": alias, "time": now.isoformat()} | ({"move": move} if move else {})
    store.put_if_absent(layout.change(now, identifier), encode(record))
    return now


def since(store: Store, time: datetime) -> list[Change]:
    """Changes from `time` less OVERLAP on, oldest first.

    The same marker comes back for as long as it lies in the window; a reader acts on every one of them each time,
    because the entry may have become visible after the marker.
    """
    found = []
    for minute in _minutes(store, time - OVERLAP):
        for key, _ in store.keys(f"{layout.CHANGES}/{minute}"):
            change = _read(store, key)
            if change is not None and change.time >= time - OVERLAP:
                found.append(change)
    return sorted(found, key=lambda change: (change.time, change.id))


def _read(store: Store, key: str) -> Change | None:
    """The change that a marker tells of; None if it is damaged or gone.

    A hint that says nothing must not keep a watcher from those that do.
    """
    try:
        record = decode(store.get(key), key)
        when = datetime.fromisoformat(record["time"])
        name, alias, move = check_name(record["name"]), record["alias"], record.get("move")
    except (LoradeckError, ValueError, TypeError, KeyError):
        return None
    if when.tzinfo is None or not all(part is None or isinstance(part, str) for part in (alias, move)):
        return None
    return Change(key.removeprefix(f"{layout.CHANGES}/"), name, alias, when, move)


def _minutes(store: Store, start: datetime) -> Iterator[str]:
    end = datetime.now(UTC) + OVERLAP
    if end - start > _SCAN_LIMIT:
        yield from (folder for folder in store.folders(layout.CHANGES) if folder >= layout.minute(start))
        return
    minute = start.astimezone(UTC).replace(second=0, microsecond=0)
    while minute <= end:
        yield layout.minute(minute)
        minute += timedelta(minutes=1)
