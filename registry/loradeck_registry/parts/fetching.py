"""Bringing a revision's files to local disk, verified and with their signatures checked; and signing them."""

import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from loradeck_registry.aliases.log import caller as this_process
from loradeck_registry.attachments import Attachment
from loradeck_registry.cache import Cache
from loradeck_registry.cache.cache import link
from loradeck_registry.collection import leases
from loradeck_registry.contents import fetch
from loradeck_registry.errors import PreconditionError
from loradeck_registry.manifest import File
from loradeck_registry.parts.stewardship import Stewardship
from loradeck_registry.revision import Revision
from loradeck_registry.signing import Trust, sign_folder
from loradeck_registry.stores.store import Progress, Store


class Fetching(Stewardship):
    """The part of `Registry` that gives out files."""

    def __init__(self, store: Store, cache: Cache, trust: Trust | None = None) -> None:
        super().__init__(store, cache, trust)
        self._trusted: set[str] = set()

    def local(self, revision: Revision, *, progress: Progress | None = None) -> Path:
        """A local folder with the revision's files, each verified by this call. Do not change it.

        It stays in place until `let_go`, or until this process ends. `progress` is told the bytes of each chunk that is
        fetched. Raises DamagedError or NotFoundError naming the object, PreconditionError (SIGNATURE_MISSING,
        SIGNATURE_INVALID) where signatures are required.
        """
        folder = self._local(revision, progress)
        self._check_signature(revision, folder)
        return folder

    def is_local(self, revision: Revision) -> bool:
        """Whether the revision's files are in the local read cache, so that `local` need not fetch; not verified."""
        return self._cache.holds(revision.digest)

    def let_go(self, revision: Revision) -> None:
        """Say that this process does not use the folder that `local` gave any more: the cache may evict it."""
        self._cache.let_go(revision.digest)

    def pull(self, revision: Revision, destination: Path, *, progress: Progress | None = None) -> None:
        """Copy the revision's files, verified, and its manifest as `manifest.json` into an absent or empty folder.

        The folder appears complete or not at all. `progress` is told the bytes of each chunk, from any thread. Raises
        PreconditionError if it holds files or cannot be written, and what `local` raises.
        """
        if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
            raise PreconditionError(f"{destination} exists and is not an empty folder", reason="NOT_EMPTY")
        part = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            part.mkdir(parents=True)
            with self._held(revision) as touch, self._cache.sources(self._store) as sources:

                def fetch_file(file: File) -> None:
                    target = part / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    fetch(self._store, file, target, f"{file.path} of {revision}", sources, _both(touch, progress))

                with ThreadPoolExecutor(self._store.files_at_once) as pool:
                    list(pool.map(fetch_file, revision.manifest.files))
            (part / "manifest.json").write_bytes(revision.manifest.canonical_json())
            self._check_signature(revision, part)
            part.replace(destination)
        except OSError as error:
            raise PreconditionError(f"cannot write {destination}: {error.strerror}", reason="NOT_PERMITTED") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def sign(self, revision: Revision, key: Path, *, password: str | None = None, who: str = "") -> Attachment:
        """Sign files and manifest with the EC private key in a PEM file, and attach the signature.

        Raises InvalidError (no such key), PreconditionError (SIGN_PACKAGE_MISSING).
        """
        with self._cache.aside() as scratch, self._signed_files(revision, self._local(revision)) as folder:
            content = sign_folder(folder, key, scratch, password)
        return self.attach(revision, "signature", content, who=who)

    def _local(self, revision: Revision, progress: Progress | None = None) -> Path:
        store, manifest, digest = self._store, revision.manifest, revision.digest
        if self._cache.holds(digest):
            return self._cache.revision(store, manifest, digest, str(revision), progress)
        with self._held(revision) as touch:
            return self._cache.revision(store, manifest, digest, str(revision), _both(touch, progress))

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


def _both(one: Progress, other: Progress | None) -> Progress:
    """Tells two of progress."""

    def tell(size: int) -> None:
        one(size)
        if other is not None:
            other(size)

    return tell
