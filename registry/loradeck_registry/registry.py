"""The registry: push, resolve, move and read revisions in one object store."""

import difflib
import hashlib
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from loradeck_registry import changes, layout, leases, protection
from loradeck_registry.addresses import open_store
from loradeck_registry.aliases import AliasEntry, AliasLog, shares
from loradeck_registry.aliases import caller as this_process
from loradeck_registry.attachments import Attachment
from loradeck_registry.cache import Cache, default_folder, fetch, link, sha256_of
from loradeck_registry.changes import Change
from loradeck_registry.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from loradeck_registry.files import check_file
from loradeck_registry.leases import Lease
from loradeck_registry.log import NumberedLog, decode, encode
from loradeck_registry.manifest import Manifest
from loradeck_registry.reference import LATEST, PROD, Reference, check_alias, check_name
from loradeck_registry.revision import FORMAT, Revision, parse_manifest
from loradeck_registry.signing import Trust, sign_folder
from loradeck_registry.stewardship import Stewardship
from loradeck_registry.store import Progress, Store, damaged
from loradeck_registry.verify import VerifyReport, verify_store

__all__ = ["Registry", "Revision", "parse_manifest"]

_ATTEMPTS = 1000
_UPLOADS = 3
_AT_ONCE = 4
"""Files sent to an object store at once."""


class Registry(Stewardship):
    """One registry. Safe to use from many threads, processes and machines at once. Use `Registry.open` or
    `Registry.init`."""

    def __init__(self, store: Store, cache: Cache, trust: Trust | None = None) -> None:
        self._trust = trust or Trust()
        self._trusted: set[str] = set()
        self._store = store
        self._cache = cache
        self._revision_logs: dict[str, NumberedLog] = {}
        self._alias_logs: dict[tuple[str, str], AliasLog] = {}
        self._manifests: dict[str, Manifest] = {}

    @classmethod
    def open(cls, url: str | Path, *, cache: Path | None = None, trust: Trust | None = None) -> "Registry":
        """The registry at a folder path, or a file://, s3://, gs://, az:// or memory:// address.

        `cache` is the local read cache's folder. `trust` says what signatures are asked for (default: what the
        environment says, `Trust.from_environment`). Raises NotFoundError (NO_REGISTRY, NO_BUCKET), PreconditionError
        (NO_CREDENTIALS, NOT_PERMITTED), UnavailableError (not reachable), InvalidError for other addresses.
        """
        store = open_store(url)
        try:
            marker = decode(store.get(layout.MARKER), layout.MARKER)
        except NotFoundError as error:
            if error.reason == "NO_BUCKET":
                raise
            raise NotFoundError(
                f"{store.url} is not a registry (it has no {layout.MARKER}); make one with "
                f"`loradeck registry init --registry {store.url}`",
                reason="NO_REGISTRY",
            ) from None
        if marker.get("format") != FORMAT:
            raise PreconditionError(
                f"the registry {store.url} has format {marker.get('format')}, this loradeck reads {FORMAT}: "
                "upgrade loradeck",
                reason="REGISTRY_FORMAT",
            )
        return cls(store, Cache(cache or default_folder()), trust or Trust.from_environment())

    @classmethod
    def init(cls, url: str | Path, *, cache: Path | None = None) -> "Registry":
        """Make a registry in an absent or empty folder, or an empty bucket or prefix; an existing one is opened.

        Raises PreconditionError if the place cannot be written or holds other things, and what `open` raises.
        """
        store = open_store(url, create=True)
        if store.size(layout.MARKER) is None:
            if not store.is_empty() and store.size(layout.MARKER) is None:
                raise PreconditionError(
                    f"{store.url} holds other things and is not a registry: choose an empty place", reason="NOT_EMPTY"
                )
            marker = {"format": FORMAT, "id": uuid.uuid4().hex, "create_time": datetime.now(UTC).isoformat()}
            store.put_if_absent(layout.MARKER, encode(marker))
        return cls.open(url, cache=cache)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._store.url

    def push(
        self,
        name: str,
        manifest: Manifest,
        files: Mapping[str, Path],
        *,
        alias: str | None = None,
        author: str | None = None,
        reason: str = "",
        progress: Progress | None = None,
    ) -> Revision:
        """Store files, then the manifest, then the revision under the next free number; then move `alias` to it.

        `files` gives the local file for each path in the manifest; files that are there already, from a broken-off push
        too, are not sent again. `progress` is told the bytes of each chunk sent, from any thread. Pushing the manifest
        of the newest revision again returns that revision. Raises InvalidError (bad name, file refused),
        PreconditionError (file differs from the manifest, KIND_CHANGED, GATE_FAILED for a protected `alias`, not
        writable). Whatever fails, readers never see part of a revision.
        """
        check_name(name)
        if alias is not None:
            check_alias(alias)
        if set(files) != {file.path for file in manifest.files}:
            odd = sorted(set(files) ^ {file.path for file in manifest.files})
            raise InvalidError(f"manifest and files differ: {', '.join(odd)}", field="files")
        self._check_kind(name, manifest)
        for file in manifest.files:
            check_file(file.path, files[file.path])
        digest = manifest.digest()
        with leases.take(
            self._store, f"push-{this_process()}", [digest], {file.sha256 for file in manifest.files}
        ) as lease:
            self._upload(manifest, files, digest, lease, progress)
            revision = self._push_revision(name, manifest, digest, author or manifest.author, reason)
        if alias is not None:
            self.move_alias(name, alias, str(revision.number), who=author or "", why=reason or "published")
        return revision

    def resolve(self, reference: str | Reference, *, caller: str = "") -> Revision:
        """The revision that a reference names now: bare `name` is `@prod` if that alias exists, else `@latest`.

        A weighted alias gives each `caller` the revision drawn for it (`AliasEntry.draw`), and without a caller the one
        with the largest share. Raises NotFoundError with what exists instead, InvalidError for a malformed reference,
        DamagedError.
        """
        if isinstance(reference, str):
            reference = Reference.parse(reference)
        name = reference.name
        log = self._log(name)
        if not log.last():
            raise self._no_name(name)
        if reference.revision is not None:
            return self._revision(name, reference.revision)
        if reference.digest is not None:
            for number in log.numbers():
                if log.read(number)["digest"] == reference.digest:
                    return self._revision(name, number)
            raise NotFoundError(f"{name} has no revision with digest {reference.digest}", reason="REVISION_NOT_FOUND")
        if reference.alias not in (None, LATEST):
            assert reference.alias is not None
            entry = self._alias(name, reference.alias).current()
            if entry is None:
                known = ", ".join(self.aliases(name)) or "none"
                raise NotFoundError(
                    f"{name} has no alias {reference.alias!r} (aliases: {known}; `latest` always works)",
                    reason="ALIAS_NOT_FOUND",
                )
            return self._revision(name, entry.draw(caller).revision)
        entry = self._alias(name, PROD).current() if reference.alias is None else None
        return self._revision(name, entry.draw(caller).revision if entry else log.last())

    def names(self) -> list[str]:
        """All names that have a revision, sorted."""
        return self._store.folders(layout.REVISIONS)

    def revisions(self, name: str) -> list[Revision]:
        """All revisions of a name, oldest first. Raises NotFoundError."""
        numbers = self._log(check_name(name)).numbers()
        if not numbers:
            raise self._no_name(name)
        return [self._revision(name, number) for number in numbers]

    def record(self, revision: Revision) -> dict[str, object]:
        """The revision's record: `digest`, `kind`, `author`, `reason`, `create_time`."""
        return dict(self._log(revision.name).read(revision.number))

    def aliases(self, name: str) -> dict[str, AliasEntry]:
        """The aliases of a name and where they point; empty if it has none."""
        found = {}
        for alias in self._store.folders(layout.aliases(check_name(name))):
            entry = self._alias(name, alias).current()
            if entry is not None:
                found[alias] = entry
        return found

    def move_alias(
        self,
        name: str,
        alias: str,
        target: str | Mapping[str, float],
        *,
        expect: int | None = None,
        who: str = "",
        why: str = "",
        rules: Sequence[str] = (),
    ) -> AliasEntry:
        """Point `name@alias` at `target`: a number, another alias, `latest` or `sha256:…`, with or without `name@`.

        A mapping from such targets to weights makes a weighted alias. `expect` is the revision the alias must point to
        now (of a weighted one that with the largest share), 0 if it must not exist yet. Raises ConflictError
        (ALIAS_MOVED) when somebody else moved it, NotFoundError for an unknown target, PreconditionError (GATE_FAILED)
        when a target fails the rules that protect the alias, or `rules`, which are asked of this move in addition.
        """
        check_alias(alias)
        wanted = {target: 1.0} if isinstance(target, str) else dict(target)
        found = {text: self._within(name, text) for text in wanted}
        held = leases.take(self._store, f"alias-{this_process()}", {revision.digest for revision in found.values()})
        with held:
            for revision in found.values():
                if self._store.size(layout.revision(name, revision.number)) is None:
                    raise self._retired(name, revision.number)
            targets = shares([(found[text].number, found[text].digest, weight) for text, weight in wanted.items()])
            log = self._alias(name, alias)
            gate = protection.gate(self._store, name, alias, targets, rules)
            return log.move(targets, expect=expect, who=who, why=why, check=gate)

    def rollback(self, name: str, alias: str, *, who: str = "", why: str = "") -> AliasEntry:
        """Point the alias where it pointed before, as one more entry of its log; again, further back.

        Raises NotFoundError (no such alias), PreconditionError (nothing before), ConflictError (moved meanwhile).
        """
        self.resolve(Reference(check_name(name), alias=check_alias(alias)))
        return self._alias(name, alias).rollback(who=who, why=why)

    def history(self, name: str, alias: str) -> list[AliasEntry]:
        """Every move of an alias, newest first. Raises NotFoundError."""
        self.resolve(Reference(check_name(name), alias=check_alias(alias)))
        return self._alias(name, alias).history()

    def local(self, revision: Revision) -> Path:
        """A local folder with the revision's files, each verified by this call. Do not change it.

        It stays in place: nothing is evicted from the cache. Raises DamagedError or NotFoundError naming the object,
        PreconditionError (SIGNATURE_MISSING, SIGNATURE_INVALID) where signatures are required.
        """
        folder = self._local(revision)
        self._check_signature(revision, folder)
        return folder

    def sign(self, revision: Revision, key: Path, *, password: str | None = None, who: str = "") -> Attachment:
        """Sign files and manifest with the EC private key in a PEM file, and attach the signature.

        Raises InvalidError (no such key), PreconditionError (SIGN_PACKAGE_MISSING).
        """
        with self._cache.aside() as scratch, self._signed_files(revision, self._local(revision)) as folder:
            content = sign_folder(folder, key, scratch, password)
        return self.attach(revision, "signature", content, who=who)

    def is_local(self, revision: Revision) -> bool:
        """Whether the revision's files are in the local read cache, so that `local` need not fetch; not verified."""
        return self._cache.holds(revision.digest)

    def pull(self, revision: Revision, destination: Path, *, progress: Progress | None = None) -> None:
        """Copy the revision's files, verified, and its manifest as `manifest.json` into an absent or empty folder.

        The folder appears complete or not at all. `progress` is told the bytes of each chunk. Raises PreconditionError
        if it holds files or cannot be written, and what `local` raises.
        """
        if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
            raise PreconditionError(f"{destination} exists and is not an empty folder", reason="NOT_EMPTY")
        part = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            part.mkdir(parents=True)
            with self._held(revision) as touch:
                for file in revision.manifest.files:
                    target = part / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    fetch(self._store, file, target, f"{file.path} of {revision}", _both(touch, progress))
            (part / "manifest.json").write_bytes(revision.manifest.canonical_json())
            self._check_signature(revision, part)
            part.replace(destination)
        except OSError as error:
            raise PreconditionError(f"cannot write {destination}: {error.strerror}", reason="NOT_PERMITTED") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def verify(self) -> VerifyReport:
        """Read everything, and name what is damaged, missing or used by nothing."""
        return verify_store(self._store)

    def changes(self, since: datetime) -> list[Change]:
        """Change markers from `since` (less an overlap) on; each says: read that name or alias again."""
        return changes.since(self._store, since)

    def _local(self, revision: Revision) -> Path:
        store, manifest, digest = self._store, revision.manifest, revision.digest
        if self._cache.holds(digest):
            return self._cache.revision(store, manifest, digest, str(revision))
        with self._held(revision) as touch:
            return self._cache.revision(store, manifest, digest, str(revision), touch)

    @contextmanager
    def _held(self, revision: Revision) -> Iterator[Progress]:
        """A lease while files are fetched; it is to be told of progress. Who may only read does without."""
        try:
            lease = leases.take(self._store, f"pull-{this_process()}", [revision.digest])
        except PreconditionError:
            yield lambda _: None
            return
        with lease:
            yield lambda _: lease.touch()

    def _check_signature(self, revision: Revision, folder: Path) -> None:
        """`folder` has been verified against the manifest: one check of its signature in a process will do."""
        if self._trust.policy == "off" or revision.digest in self._trusted:
            return
        signatures = [entry.content for entry in self.attachments(revision, "signature")]
        with self._cache.aside() as scratch, self._signed_files(revision, folder) as files:
            self._trust.check(str(revision), files, signatures, scratch)
        self._trusted.add(revision.digest)

    @contextmanager
    def _signed_files(self, revision: Revision, folder: Path) -> Iterator[Path]:
        """A folder of exactly what a signature covers: the revision's files, and its manifest as `manifest.json`."""
        with self._cache.aside() as scratch:
            for file in revision.manifest.files:
                target = scratch / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                link(folder / file.path, target)
            (scratch / "manifest.json").write_bytes(revision.manifest.canonical_json())
            yield scratch

    def _upload(
        self,
        manifest: Manifest,
        files: Mapping[str, Path],
        digest: str,
        lease: Lease,
        progress: Progress | None,
    ) -> None:
        """Blobs and manifest. Should the lease ever have ended on the way, what is there is looked at again."""
        lock = threading.Lock()

        def sent(size: int) -> None:
            with lock:
                lease.touch()
            if progress is not None:
                progress(size)

        for _ in range(_UPLOADS):
            with ThreadPoolExecutor(_AT_ONCE if self._store.remote else 1) as pool:
                blobs = {file.sha256: file for file in manifest.files}
                tasks = [pool.submit(self._push_blob, files[f.path], f.sha256, f.size, sent) for f in blobs.values()]
            for task in tasks:
                task.result()
            for file in manifest.files:
                if blobs[file.sha256] is not file and sha256_of(files[file.path]) != file.sha256:
                    raise _file_changed(files[file.path])
            self._store.put_if_absent(layout.manifest(digest), manifest.canonical_json())
            if lease.in_force():
                return
            lease.renew()
        raise UnavailableError(f"the push of {manifest.kind} files was interrupted again and again; try again")

    def _push_blob(self, source: Path, sha256: str, size: int, progress: Progress) -> None:
        key = layout.blob(sha256)
        if self._store.size(key) != size:
            self._store.put_file(key, source, sha256, size, progress)
        elif sha256_of(source) != sha256:
            raise _file_changed(source)

    def _push_revision(self, name: str, manifest: Manifest, digest: str, author: str | None, reason: str) -> Revision:
        record = {
            "format": FORMAT,
            "digest": digest,
            "kind": manifest.kind,
            "author": author,
            "reason": reason,
            "create_time": datetime.now(UTC).isoformat(),
        }
        log = self._log(name)
        for attempt in range(_ATTEMPTS):
            last = log.last()
            if last and log.read(last)["digest"] == digest:
                return Revision(name, last, digest, manifest)
            self._check_kind(name, manifest)
            changes.mark(self._store, name)
            if log.append(last + 1, record):
                return Revision(name, last + 1, digest, manifest)
            time.sleep(min(0.001 * attempt, 0.05))
        raise ConflictError(f"too many writers push {name} at once; try again")

    def _check_kind(self, name: str, manifest: Manifest) -> None:
        log = self._log(name)
        if (last := log.last()) and log.read(last)["kind"] != manifest.kind:
            raise PreconditionError(
                f"{name} holds revisions of kind {log.read(last)['kind']}, this one is of kind {manifest.kind}: "
                "choose another name",
                reason="KIND_CHANGED",
                field="name",
            )

    def _revision(self, name: str, number: int) -> Revision:
        log = self._log(name)
        try:
            digest = str(log.read(number)["digest"])
        except NotFoundError:
            raise self._retired(name, number) from None
        return Revision(name, number, digest, self._manifest(digest, f"{name}@{number}"))

    def _check_known(self, name: str) -> None:
        if not self._log(name).last():
            raise self._no_name(name)

    def _within(self, name: str, target: str) -> Revision:
        text = target if "@" in target else f"{check_name(name)}@{target}"
        reference = Reference.parse(text)
        if reference.name != name:
            raise InvalidError(f"{text} is not a revision of {name}: an alias stays within its name", field="target")
        return self.resolve(reference)

    def _retired(self, name: str, number: int) -> NotFoundError:
        if self._store.size(layout.retired(name, number)) is not None:
            return NotFoundError(
                f"{name}@{number} was removed by a garbage collection; the latest is {self._log(name).last()}",
                reason="REVISION_RETIRED",
            )
        return NotFoundError(
            f"{name} has no revision {number}; the latest is {self._log(name).last()}", reason="REVISION_NOT_FOUND"
        )

    def _manifest(self, digest: str, what: str) -> Manifest:
        if digest not in self._manifests:
            key = layout.manifest(digest)
            try:
                content = self._store.get(key)
            except NotFoundError:
                raise NotFoundError(
                    f"the manifest of {what} is missing: {key} is not in {self.url}; run `loradeck registry verify`",
                    reason="MISSING_OBJECT",
                    metadata={"object": key},
                ) from None
            if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
                raise damaged(f"the manifest of {what}", key, self.url)
            self._manifests[digest] = parse_manifest(content, what)
        return self._manifests[digest]

    def _log(self, name: str) -> NumberedLog:
        if name not in self._revision_logs:
            self._revision_logs[name] = NumberedLog(self._store, layout.revisions(name))
        return self._revision_logs[name]

    def _alias(self, name: str, alias: str) -> AliasLog:
        if (name, alias) not in self._alias_logs:
            self._alias_logs[name, alias] = AliasLog(self._store, name, alias)
        return self._alias_logs[name, alias]

    def _no_name(self, name: str) -> NotFoundError:
        names = self.names()
        nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else f"{self.url} holds {len(names)} names"
        return NotFoundError(
            f"no adapter, checkpoint or base named {name!r} in the registry; {hint}", reason="NAME_NOT_FOUND"
        )


def _both(one: Progress, other: Progress | None) -> Progress:
    """Tells two of progress."""

    def tell(size: int) -> None:
        one(size)
        if other is not None:
            other(size)

    return tell


def _file_changed(source: Path) -> PreconditionError:
    return PreconditionError(
        f"{source.name} is not the file that the manifest describes", reason="FILE_CHANGED", field="files"
    )
