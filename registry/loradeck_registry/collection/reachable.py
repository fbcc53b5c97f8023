"""What is needed and what is not: one look at a whole registry, from its revisions, aliases and leases."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from loradeck_registry import layout
from loradeck_registry.aliases.log import AliasLog
from loradeck_registry.changes import OVERLAP
from loradeck_registry.collection.leases import read_leases
from loradeck_registry.collection.retention import Record, Retention
from loradeck_registry.delta.record import read_record
from loradeck_registry.errors import NotFoundError, PreconditionError
from loradeck_registry.log import decode
from loradeck_registry.manifest import digest_of
from loradeck_registry.records import RevisionRecord, TagRecord
from loradeck_registry.revision import parse_manifest
from loradeck_registry.stores.store import Store

KEEP_MARKERS = timedelta(days=7)
KEEP_TALK = timedelta(hours=2)
"""Servers renew what they say of themselves every few seconds, and a move takes an hour at most."""
"""Change markers and collections' records older than this are of use to nobody."""

_PART_AGE = timedelta(hours=1)
"""A part that was written to more recently may belong to an upload that goes on, whatever the grace time."""


@dataclass
class Survey:
    """What a look found."""

    garbage: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Objects that nothing needs: bytes, and why nothing does."""
    retired: dict[str, Record] = field(default_factory=dict)
    """Those of them that are records of revisions which retention retires."""
    parts: set[str] = field(default_factory=set)
    """Those of them that are parts of interrupted writes in a local folder."""
    live_leases: int = 0


def survey(store: Store, retention: Retention, grace: timedelta) -> Survey:
    """Look at everything. The leases are read first: a writer that ends meanwhile has its revision written by then.

    Raises PreconditionError if a manifest in use cannot be read: what it needs is not known then, and nothing may go.
    """
    found = Survey()
    now = datetime.now(UTC)
    oldest = now - grace
    leases = read_leases(store)
    live = [lease for lease in leases if lease.live(now)]
    found.live_leases = len({lease.lease for lease in live})
    found.garbage |= {lease.key: (0, "a lease that has ended") for lease in leases if not lease.live(now)}
    leased = {digest for lease in live for digest in lease.manifests}
    manifests = set(leased)
    blobs = {sha256 for lease in live for sha256 in lease.blobs}

    records = _records(store, oldest)
    gone = _retired(store, retention, records)
    for record, (key, size, young) in records.items():
        if record in gone and record.digest not in leased and not young:
            found.garbage[key] = (size, "retired by the retention rule")
            found.retired[key] = record
        else:
            manifests.add(record.digest)
    both = set(blobs)
    for digest in sorted(manifests):
        try:
            files = _files(store, digest)
        except NotFoundError:
            if digest in leased or not _named(store, records, digest):
                continue
            raise
        blobs |= files
        both |= files if digest in leased else set()
    stored = {key: (size, time) for key, size, time in store.items(layout.BLOBS)}
    kept = {layout.manifest(digest) for digest in manifests}
    kept |= _forms(store, blobs, both, stored.keys())
    objects = [(key, size, time) for key, (size, time) in stored.items()]
    for key, size, time in (*store.items(layout.MANIFESTS), *store.items(layout.DELTAS), *objects):
        if key not in kept and time < oldest:
            found.garbage[key] = (size, "used by no revision")
    hexdigits = {digest.removeprefix("sha256:") for digest in manifests}
    for key, size, time in store.items(layout.ATTACHMENTS):
        if key.split("/")[1] not in hexdigits and time < oldest:
            found.garbage[key] = (size, "attached to a revision that is gone")
    _old_markers(store, found, now)
    _parts(store, found, oldest)
    return found


def _forms(store: Store, files: set[str], both: set[str], stored: Iterable[str]) -> set[str]:
    """The objects that hold these files: a blob, or where there is none a delta with its body and its sources.

    Of what a lease names (`both`) a delta stays beside the blob: who began to read it goes on.
    """
    there = set(stored)
    kept = {layout.blob(sha256) for sha256 in files}
    for key, _ in store.keys(layout.DELTAS):
        sha256 = key.rpartition("/")[2]
        if sha256 not in files or (layout.blob(sha256) in there and sha256 not in both):
            continue
        try:
            record = read_record(store, sha256)
        except NotFoundError:
            continue
        kept |= {key} | {layout.blob(blob) for blob in record.blobs}
    return kept


def _records(store: Store, oldest: datetime) -> dict[Record, tuple[str, int, bool]]:
    """Every revision: its key, bytes, and whether it is within the grace time."""
    found = {}
    for key, size, time in store.items(layout.REVISIONS):
        number = layout.number_of(key)
        if number is None:
            continue
        try:
            content = store.get(key)
        except NotFoundError:
            # Another collection has retired it since the listing.
            continue
        record = Record(key.split("/")[1], number, str(decode(content, key, RevisionRecord)["digest"]))
        found[record] = (key, size, time >= oldest)
    return found


def _named(store: Store, records: dict[Record, tuple[str, int, bool]], digest: str) -> bool:
    """Whether a revision still names this manifest: another collection may have retired those that did."""
    return any(record.digest == digest and store.size(key) is not None for record, (key, _, _) in records.items())


def _retired(store: Store, retention: Retention, records: dict[Record, tuple[str, int, bool]]) -> set[Record]:
    if retention.keep_last is None:
        return set()
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_name[record.name].append(record)
    aliased: set[tuple[str, int]] = set()
    restorable: set[tuple[str, int]] = set()
    for name in store.folders(layout.ALIASES):
        for alias in store.folders(layout.aliases(name)):
            log = AliasLog(store, name, alias)
            aliased |= {(name, number) for number in log.targets()}
            restorable |= {(name, number) for number in log.restorable()}
    tagged = {f"sha256:{hexdigits}" for hexdigits in _tagged(store)}
    return set(retention.retires(by_name, frozenset(aliased), frozenset(restorable), frozenset(tagged)))


def _tagged(store: Store) -> set[str]:
    """Hex digests of the manifests that have a tag now."""
    from loradeck_registry.attachments import tags_in

    held: dict[str, list[str]] = defaultdict(list)
    for key, _ in store.keys(layout.ATTACHMENTS):
        _, hexdigits, kind, _ = key.split("/")
        if kind == "tag":
            held[hexdigits].append(key)
    return {hexdigits for hexdigits, keys in held.items() if tags_in(_tag_records(store, keys))}


def _tag_records(store: Store, keys: list[str]) -> Iterator[dict[str, Any]]:
    for key in sorted(keys):
        try:
            content = store.get(key)
        except NotFoundError:
            # Deleted by another collection, with its revision.
            continue
        yield decode(content, key, TagRecord)


def _files(store: Store, digest: str) -> set[str]:
    key = layout.manifest(digest)
    content = store.get(key)
    if digest_of(content) != digest:
        raise PreconditionError(
            f"the manifest {key} is damaged, so what it needs is not known: restore it before a collection; "
            "`loradeck registry verify` tells more",
            reason="DAMAGED",
        )
    return {file.sha256 for file in parse_manifest(content, key).files}


def _old_markers(store: Store, found: Survey, now: datetime) -> None:
    for minute in store.folders(layout.CHANGES):
        if minute < layout.minute(now - KEEP_MARKERS):
            for key, size in store.keys(f"{layout.CHANGES}/{minute}"):
                found.garbage[key] = (size, "a change marker that no watcher reads any more")
    for key, size, time in store.items(layout.QUARANTINE):
        if time < now - KEEP_MARKERS - OVERLAP:
            found.garbage[key] = (size, "left by a collection that was interrupted")
    for folder in (layout.SERVERS, layout.MOVES):
        for key, size, time in store.items(folder):
            if time < now - KEEP_TALK - OVERLAP:
                found.garbage[key] = (size, "left by a server, or a move, that ended")


def _parts(store: Store, found: Survey, oldest: datetime) -> None:
    for name in store.unfinished():
        assert store.folder is not None
        path: Path = store.folder / name
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        if state.st_mtime < min(oldest, datetime.now(UTC) - _PART_AGE).timestamp():
            found.garbage[name] = (state.st_size, "left by an interrupted write")
            found.parts.add(name)
