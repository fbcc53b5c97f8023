"""The local read cache: verified files by digest, and one folder per revision. Shared by processes without a lock.

Everything is made aside and then renamed into place, so a reader or a crash never sees half a file, and of two
processes that make the same thing one result stays.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loradeck_registry import layout
from loradeck_registry.errors import NotFoundError, PreconditionError
from loradeck_registry.manifest import File, Manifest
from loradeck_registry.store import CHUNK, Progress, Store, damaged


def default_folder() -> Path:
    """$LORADECK_CACHE, else loradeck in the user's cache folder."""
    if path := os.environ.get("LORADECK_CACHE"):
        return Path(path).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser().absolute() / "loradeck"


class Cache:
    """A cache folder. Nothing in it is ever evicted; the user may delete it when no process uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def revision(
        self, store: Store, manifest: Manifest, digest: str, what: str, progress: Progress | None = None
    ) -> Path:
        """Folder with the revision's files, every one verified now against its digest.

        What is damaged or missing is fetched again. Files are read-only hard links into the cache: do not change them.
        Raises DamagedError naming the object if the store's copy is damaged, NotFoundError if it lacks one.
        """
        final = self.folder / "revisions" / digest.removeprefix("sha256:")
        if final.is_dir() and all(_matches(final / file.path, file) for file in manifest.files):
            return final
        with self.aside() as folder:
            for file in manifest.files:
                blob = self._blob(store, file, f"{file.path} of {what}", progress)
                target = folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                link(blob, target)
            _install(folder, final, manifest)
        return final

    def holds(self, digest: str) -> bool:
        """Whether the revision with this digest has its folder here."""
        return (self.folder / "revisions" / digest.removeprefix("sha256:")).is_dir()

    def _blob(self, store: Store, file: File, what: str, progress: Progress | None) -> Path:
        final = self.folder / "blobs" / file.sha256[:2] / file.sha256
        if _matches(final, file):
            return final
        with self.aside() as folder:
            part = folder / "blob"
            fetch(store, file, part, what, progress)
            part.chmod(0o444)
            final.parent.mkdir(parents=True, exist_ok=True)
            part.replace(final)
        return final

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """An empty folder to make things in; what is not renamed out of it is gone after the block."""
        folder = self.folder / "tmp" / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
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


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder beside the cache, which has room for models; gone after the block."""
    with Cache(default_folder()).aside() as folder:
        yield folder


def fetch(store: Store, file: File, target: Path, what: str, progress: Progress | None = None) -> None:
    """Write a blob to `target`, verified as it is read. Raises DamagedError, NotFoundError, and leaves no `target`."""
    key = layout.blob(file.sha256)
    digest = hashlib.sha256()
    try:
        with target.open("wb") as out:
            for chunk in store.chunks(key):
                digest.update(chunk)
                out.write(chunk)
                if progress is not None:
                    progress(len(chunk))
        if digest.hexdigest() != file.sha256:
            raise damaged(what, key, store.url)
    except NotFoundError as error:
        target.unlink(missing_ok=True)
        raise NotFoundError(
            f"{what} is missing: {key} is not in {store.url}; run `loradeck registry verify`, restore the object "
            "from a copy, or push the same files again",
            reason="MISSING_OBJECT",
            metadata={"object": key},
        ) from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


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
