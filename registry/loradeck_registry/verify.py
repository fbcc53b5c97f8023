"""Verification: reads every object and names what is damaged, missing or used by nothing."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from loradeck_registry import layout
from loradeck_registry.contents import Sources, open_content
from loradeck_registry.delta.record import DeltaRecord, read_record
from loradeck_registry.errors import LoradeckError, NotFoundError
from loradeck_registry.log import decode
from loradeck_registry.manifest import Manifest
from loradeck_registry.records import AliasRecord, Record, RevisionRecord
from loradeck_registry.stores.store import Store


@dataclass(frozen=True)
class Finding:
    """One object that is not as it should be. `why` says what is wrong and what needs it."""

    object: str
    why: str


@dataclass
class VerifyReport:
    """What a scan found. Orphans are harmless: what an interrupted push leaves behind."""

    names: int = 0
    revisions: int = 0
    aliases: int = 0
    blobs: int = 0
    deltas: int = 0
    """Files that are stored as a difference to others."""
    bytes: int = 0
    """Bytes of the blobs that are in use."""
    damaged: list[Finding] = field(default_factory=list)
    missing: list[Finding] = field(default_factory=list)
    orphaned: list[Finding] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything in use is there and whole."""
        return not self.damaged and not self.missing


def verify_store(store: Store, sources: Sources) -> VerifyReport:
    """Scan a registry: read every record, manifest and blob once, and rebuild every file that is stored as a delta."""
    return _Scan(store, sources).run()


class _Scan:
    def __init__(self, store: Store, sources: Sources) -> None:
        self._store = store
        self._sources = sources
        self._report = VerifyReport()
        self._manifests: dict[str, str] = {}
        self._unreadable: set[tuple[str, int]] = set()
        """Revisions whose record is damaged: what they use and what points to them cannot be judged."""
        self._files: dict[str, tuple[int, str]] = {}
        self._blobs: dict[str, tuple[int, str]] = {}
        self._deltas: dict[str, tuple[DeltaRecord, str]] = {}

    def run(self) -> VerifyReport:
        digests = self._scan_revisions()
        self._scan_aliases(digests)
        for digest, user in self._manifests.items():
            self._scan_manifest(digest, user)
        self._choose_forms()
        self._scan_blobs()
        self._scan_deltas()
        self._scan_orphans()
        return self._report

    def _scan_revisions(self) -> dict[tuple[str, int], str]:
        digests: dict[tuple[str, int], str] = {}
        names = set()
        for key, number in self._numbered(layout.REVISIONS, 3):
            name = key.split("/")[1]
            names.add(name)
            record = self._record(key, RevisionRecord)
            if record is None:
                self._unreadable.add((name, number))
                continue
            self._report.revisions += 1
            digests[name, number] = record["digest"]
            self._manifests.setdefault(record["digest"], f"{name}@{number}")
        for name in names:
            self._check_gaps(layout.revisions(name), [n for other, n in {*digests, *self._unreadable} if other == name])
        self._report.names = len(names)
        return digests

    def _scan_aliases(self, digests: dict[tuple[str, int], str]) -> None:
        logs: dict[str, list[int]] = {}
        for key, number in self._numbered(layout.ALIASES, 4):
            _, name, alias, _ = key.split("/")
            logs.setdefault(layout.alias_log(name, alias), []).append(number)
            record = self._record(key, AliasRecord)
            for target in record["targets"] if record else ():
                number = target["revision"]
                if (name, number) in self._unreadable:
                    continue
                if digests.get((name, number)) != target["digest"] and not self._retired(name, number):
                    self._report.missing.append(
                        Finding(layout.numbered(layout.revisions(name), target["revision"]), f"{key} points to it")
                    )
        self._report.aliases = len(logs)
        for folder, numbers in logs.items():
            self._check_gaps(folder, numbers)

    def _retired(self, name: str, number: int) -> bool:
        """Whether a collection has removed the revision and left its note."""
        return self._store.size(layout.retired(name, number)) is not None

    def _check_gaps(self, folder: str, numbers: list[int]) -> None:
        for number in sorted(set(range(1, max(numbers, default=0))) - set(numbers)):
            key = layout.numbered(folder, number)
            kind, name = folder.split("/")[:2]
            if kind == layout.REVISIONS and self._retired(name, number):
                continue
            if not any(finding.object == key for finding in self._report.damaged):
                self._report.missing.append(Finding(key, "the log has a gap"))

    def _scan_manifest(self, digest: str, user: str) -> None:
        key = layout.manifest(digest)
        try:
            content = self._store.get(key)
        except NotFoundError:
            self._report.missing.append(Finding(key, f"the manifest of {user}"))
            return
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            self._report.damaged.append(Finding(key, f"the manifest of {user} does not match its digest"))
            return
        try:
            manifest = Manifest.model_validate_json(content)
        except ValidationError:
            self._report.damaged.append(Finding(key, f"the manifest of {user} is not valid"))
            return
        for file in manifest.files:
            self._files.setdefault(file.sha256, (file.size, f"{file.path} of {user}"))

    def _choose_forms(self) -> None:
        """Which files are read whole, and which from a delta and what it is made from."""
        there = {key for key, _ in self._store.keys(layout.BLOBS)}
        recorded = {key for key, _ in self._store.keys(layout.DELTAS)}
        for sha256, (size, user) in self._files.items():
            key = layout.delta(sha256)
            if layout.blob(sha256) in there or key not in recorded:
                self._blobs[sha256] = (size, user)
                continue
            try:
                record = read_record(self._store, sha256)
            except LoradeckError as error:
                self._report.damaged.append(Finding(key, f"{user}: {error.message}"))
                continue
            self._deltas[sha256] = (record, user)
            self._blobs.setdefault(record.body.sha256, (record.body.size, f"the delta of {user}"))
            for source in record.sources:
                self._blobs.setdefault(source.sha256, (source.size, f"the source of the delta of {user}"))

    def _scan_deltas(self) -> None:
        """Rebuild each file of whose parts all are whole."""
        broken = {finding.object for finding in (*self._report.damaged, *self._report.missing)}
        for sha256, (record, user) in self._deltas.items():
            if broken & {layout.blob(blob) for blob in record.blobs}:
                continue
            digest = hashlib.sha256()
            try:
                for chunk in open_content(self._store, sha256, self._sources).chunks:
                    digest.update(chunk)
            except LoradeckError as error:
                self._report.damaged.append(Finding(layout.delta(sha256), f"{user}: {error.message}"))
                continue
            if digest.hexdigest() != sha256:
                self._report.damaged.append(Finding(layout.delta(sha256), f"{user} does not match its digest"))
                continue
            self._report.deltas += 1

    def _scan_blobs(self) -> None:
        for sha256, (size, user) in self._blobs.items():
            key = layout.blob(sha256)
            digest = hashlib.sha256()
            total = 0
            try:
                for chunk in self._store.chunks(key):
                    digest.update(chunk)
                    total += len(chunk)
            except NotFoundError:
                self._report.missing.append(Finding(key, user))
                continue
            if digest.hexdigest() != sha256 or total != size:
                self._report.damaged.append(Finding(key, f"{user} does not match its digest"))
                continue
            self._report.blobs += 1
            self._report.bytes += size

    def _scan_orphans(self) -> None:
        manifests = {layout.manifest(digest) for digest in self._manifests}
        blobs = {layout.blob(sha256) for sha256 in self._blobs}
        deltas = {layout.delta(sha256) for sha256 in self._files.keys() - self._blobs.keys()}
        for prefix, used in ((layout.MANIFESTS, manifests), (layout.DELTAS, deltas), (layout.BLOBS, blobs)):
            for key, size in self._store.keys(prefix):
                if key not in used:
                    by = "no revision that can be read" if self._unreadable else "no revision"
                    self._report.orphaned.append(Finding(key, f"used by {by} ({size} bytes)"))
        for path in self._store.unfinished():
            self._report.orphaned.append(Finding(path, "left by an interrupted write"))

    def _numbered(self, prefix: str, depth: int) -> list[tuple[str, int]]:
        found = []
        for key, _ in self._store.keys(prefix):
            number = layout.number_of(key)
            if number is None or key.count("/") != depth - 1:
                self._report.orphaned.append(Finding(key, "not an object that belongs there"))
            else:
                found.append((key, number))
        return sorted(found)

    def _record(self, key: str, model: type[Record]) -> dict[str, Any] | None:
        try:
            return decode(self._store.get(key), key, model)
        except LoradeckError as error:
            self._report.damaged.append(Finding(key, error.message))
            return None
