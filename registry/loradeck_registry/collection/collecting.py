"""Garbage collection: finds what nothing needs, announces it, waits, looks again, and deletes it."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from loradeck_registry import layout
from loradeck_registry.aliases.log import caller
from loradeck_registry.collection.reachable import Survey, survey
from loradeck_registry.collection.retention import Retention
from loradeck_registry.log import encode
from loradeck_registry.stores.store import Store

GRACE = timedelta(hours=24)
"""What is younger stays, whatever needs it."""
WAIT = 900.0
"""Seconds between announcing and deleting."""
_BATCH = 500
_WINDOW = 60.0
"""Seconds that one batch of deletions may take; writers that need one of its objects wait for it."""


@dataclass(frozen=True)
class Garbage:
    """One object that nothing needs."""

    key: str
    bytes: int
    why: str


@dataclass
class CollectReport:
    """What a collection found, and what it did. In a dry run `deleted` is empty."""

    dry_run: bool
    found: list[Garbage] = field(default_factory=list)
    deleted: list[Garbage] = field(default_factory=list)
    kept: list[Garbage] = field(default_factory=list)
    """Found at first, and needed again at the second look."""
    live_leases: int = 0

    @property
    def bytes_found(self) -> int:
        """Bytes of what was found."""
        return sum(item.bytes for item in self.found)

    @property
    def bytes_freed(self) -> int:
        """Bytes of what was deleted."""
        return sum(item.bytes for item in self.deleted)


def collect(
    store: Store,
    *,
    delete: bool = False,
    retention: Retention | None = None,
    grace: timedelta = GRACE,
    wait: float = WAIT,
    sleep: Callable[[float], None] = time.sleep,
) -> CollectReport:
    """Find what no revision, lease or grace time keeps, and with `delete` delete it.

    Needed are: every revision that `retention` does not retire, with its manifest, files and attachments; what a live
    lease names; what is younger than `grace`. Nothing is deleted before `wait` seconds have passed since it was
    announced and a second look has found it unneeded still.
    """
    retention = retention or Retention()
    looked = survey(store, retention, grace)
    report = CollectReport(not delete, found=_garbage(looked), live_leases=looked.live_leases)
    if not delete or not report.found:
        return report
    run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    intent = {
        "keys": [item.key for item in report.found],
        "who": caller(),
        "create_time": datetime.now(UTC).isoformat(),
    }
    store.put_if_absent(layout.quarantine(run, "intent"), encode(intent), fleeting=True)
    try:
        sleep(wait)
        for begin in range(0, len(report.found), _BATCH):
            _delete_batch(store, run, report.found[begin : begin + _BATCH], retention, grace, report)
    finally:
        store.delete(layout.quarantine(run, "intent"))
    return report


def _delete_batch(
    store: Store, run: str, batch: list[Garbage], retention: Retention, grace: timedelta, report: CollectReport
) -> None:
    key = layout.quarantine(f"{run}-{uuid.uuid4().hex[:8]}", "deleting")
    remaining = batch
    while remaining:
        begin = time.monotonic()
        record = {
            "keys": [item.key for item in remaining],
            "expires": (datetime.now(UTC) + timedelta(seconds=2 * _WINDOW)).isoformat(),
        }
        store.put_if_absent(key, encode(record), fleeting=True)
        try:
            # From here on a writer that needs one of these waits; one that came before is in the leases read now.
            looked = survey(store, retention, grace)
            needed = {item.key for item in _garbage(looked)}
            report.kept += [item for item in remaining if item.key not in needed]
            remaining = [item for item in remaining if item.key in needed]
            while remaining and time.monotonic() < begin + _WINDOW:
                item = remaining.pop(0)
                _delete(store, item, looked)
                report.deleted.append(item)
        finally:
            store.delete(key)


def _delete(store: Store, item: Garbage, looked: Survey) -> None:
    if (revision := looked.retired.get(item.key)) is not None:
        note = {"digest": revision.digest, "who": caller(), "when": datetime.now(UTC).isoformat(), "why": item.why}
        store.put_if_absent(layout.retired(revision.name, revision.number), encode(note))
    if item.key in looked.parts and store.folder is not None:
        (store.folder / item.key).unlink(missing_ok=True)
        return
    store.delete(item.key)


def _garbage(looked: Survey) -> list[Garbage]:
    """Records first, then what they kept: a collection that is killed leaves orphans, never a broken revision."""
    order = [layout.REVISIONS, layout.ATTACHMENTS, layout.MANIFESTS, layout.DELTAS, layout.BLOBS]
    rank = {prefix.partition("/")[0]: number for number, prefix in enumerate(order)}
    found = [Garbage(key, size, why) for key, (size, why) in looked.garbage.items()]
    return sorted(found, key=lambda item: (rank.get(item.key.partition("/")[0], len(order)), item.key))
