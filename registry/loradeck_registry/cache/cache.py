"""The cache itself: revisions' folders and files, verified when they are used.

Everything is made aside and then renamed into place, so a reader or a crash never sees half a file, and of two
processes that make the same thing one result stays.
"""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout

from loradeck_registry import layout
from loradeck_registry.cache.eviction import Evicted, evict
from loradeck_registry.cache.holds import Holder
from loradeck_registry.cache.settings import default_folder, default_limit
from loradeck_registry.contents import fetch
from loradeck_registry.delta.record import Stored
from loradeck_registry.errors import NotFoundError, PreconditionError, UnavailableError
from loradeck_registry.hashing import sha256_of
from loradeck_registry.manifest import File, Manifest
from loradeck_registry.stores.store import Progress, Store

_log = logging.getLogger(__name__)


class Cache:
    """A cache folder of at most `limit` bytes (default: $LORADECK_CACHE_LIMIT). Safe for many threads and processes.

    What `revision` has returned stays until `let_go`, or until this process ends, however it ends. A revision that is
    larger than the limit is kept while it is in use.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = default_limit() if limit is None else limit
        self._holder = Holder(folder)

    def revision(
        self, store: Store, manifest: Manifest, digest: str, what: str, progress: Progress | None = None
    ) -> Path:
        """Folder with the revision's files, every one verified now against its digest, and held from now on.

        What is damaged or missing is fetched again. Files are read-only hard links into the cache: do not change them.
        Raises DamagedError naming the object if the store's copy is damaged, NotFoundError if it lacks one.
        """
        name = digest.removeprefix("sha256:")
        final = self.folder / "revisions" / name
        self._hold([name])
        try:
            if final.is_dir() and all(_matches(final / file.path, file) for file in manifest.files):
                with suppress(OSError):
                    os.utime(final)
                return final
            with self.aside() as folder, self._holding([file.sha256 for file in manifest.files]):
                with ThreadPoolExecutor(store.files_at_once) as pool:
                    blobs = pool.map(
                        lambda file: self._file(store, file, f"{file.path} of {what}", progress), manifest.files
                    )
                for file, blob in zip(manifest.files, blobs, strict=True):
                    target = folder / file.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    link(blob, target)
                _install(folder, final, manifest)
        except BaseException:
            self._holder.release([name])
            raise
        self.shrink()
        return final

    def let_go(self, digest: str) -> None:
        """The revision is not used by this process any more, however often `revision` has returned it."""
        self._holder.drop(digest.removeprefix("sha256:"))

    def holds(self, digest: str) -> bool:
        """Whether the revision with this digest has its folder here."""
        return (self.folder / "revisions" / digest.removeprefix("sha256:")).is_dir()

    @contextmanager
    def sources(self, store: Store) -> Iterator["CachedSources"]:
        """Local copies of files that a store keeps whole, for deltas; they stay for the block."""
        found = CachedSources(self, store)
        try:
            yield found
        finally:
            found.close()

    def shrink(self) -> Evicted | None:
        """Evict what is over the limit; None where the folder cannot be written."""
        try:
            return evict(self.folder, self.limit)
        except OSError as error:
            _log.warning("cannot evict from the cache %s: %s", self.folder, error.strerror)
            return None

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """An empty folder to make things in; what is not renamed out of it is gone after the block."""
        try:
            folder = self.folder / "tmp" / f"{self._holder.start()}.{uuid.uuid4().hex}"
            folder.mkdir(parents=True)
        except OSError as error:
            raise PreconditionError(
                f"cannot write to the cache {self.folder}: {error.strerror}; set LORADECK_CACHE to a writable folder",
                reason="NOT_PERMITTED",
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _file(self, store: Store, file: File, what: str, progress: Progress | None) -> Path:
        """A file by its digest, verified. To be called while it is held."""
        final = self.folder / "blobs" / file.sha256[:2] / file.sha256
        if _matches(final, file):
            return final
        with self.aside() as folder, self.sources(store) as sources:
            part = folder / "blob"
            fetch(store, file, part, what, sources, progress)
            part.chmod(0o444)
            final.parent.mkdir(parents=True, exist_ok=True)
            part.replace(final)
        return final

    def _hold(self, digests: list[str]) -> None:
        try:
            self._holder.hold(digests)
        except Timeout as error:
            raise UnavailableError(
                f"the cache {self.folder} has been locked by another process for a minute; try again",
                reason="CACHE_LOCKED",
            ) from error
        except OSError as error:
            # Where nothing can be written nothing is evicted by this user either.
            _log.debug("nothing can be held in the cache %s: %s", self.folder, error)

    @contextmanager
    def _holding(self, digests: list[str]) -> Iterator[None]:
        self._hold(digests)
        try:
            yield
        finally:
            self._holder.release(digests)


class CachedSources:
    """The local copy of each blob asked for: the store's own file where the store is a folder, else one in the cache.

    A store's own file is not verified: what is made from it is.
    """

    def __init__(self, cache: Cache, store: Store) -> None:
        self._cache = cache
        self._store = store
        self._held: list[str] = []

    def __call__(self, source: Stored) -> Path:
        key = layout.blob(source.sha256)
        if self._store.folder is not None:
            path = self._store.folder / key
            if not path.is_file():
                raise NotFoundError(f"the registry {self._store.url} has no object {key}", metadata={"object": key})
            return path
        self._cache._hold([source.sha256])
        self._held.append(source.sha256)
        file = File(path="source", sha256=source.sha256, size=source.size)
        path = self._cache._file(self._store, file, "the source of a delta", None)
        if path.stat().st_nlink == 1:
            # A file of no revision is as old as its last use.
            os.utime(path)
        return path

    def close(self) -> None:
        """Let them go."""
        self._cache._holder.release(self._held)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder beside the cache, which has room for models; gone after the block."""
    with Cache(default_folder()).aside() as folder:
        yield folder


def _matches(path: Path, file: File) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == file.size and sha256_of(path) == file.sha256
    except OSError:
        return False


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _install(folder: Path, final: Path, manifest: Manifest) -> None:
    """Rename `folder` to `final`. One that another process has just made stays; a damaged one makes way."""
    final.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            folder.rename(final)
            return
        except OSError:
            if all(_matches(final / file.path, file) for file in manifest.files):
                return
        damaged_one = folder.with_name(f"{folder.name}-{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            final.rename(damaged_one)
        shutil.rmtree(damaged_one, ignore_errors=True)
