"""The object store: the few operations the registry needs, with obstore underneath and domain errors above."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from obstore.store import LocalStore

from loradeck_registry.errors import (
    DamagedError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    UnimplementedError,
)

CHUNK = 4 << 20
"""Bytes per read when a file streams in or out."""
_LATER_SCHEMES = ("s3", "gs", "gcs", "az", "azure", "abfs", "abfss", "memory", "http", "https")


class Store:
    """Objects by key. `put_if_absent` is the one primitive that the registry's safety rests on."""

    def __init__(self, url: str, folder: Path) -> None:
        """`folder` exists. Use `open_store`."""
        self.url = url
        self.folder = folder
        self._store = LocalStore(folder)

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Create the object in one step; False, and nothing changed, if it exists. Of racing writers one gets True."""
        with self._errors(key, "write"):
            try:
                obstore.put(self._store, key, content, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def put_file(self, key: str, source: Path, sha256: str, size: int) -> None:
        """Stream a local file in, under a key that names its content.

        The bytes are hashed on the way: if the file is not what was announced, nothing becomes visible and
        PreconditionError (reason FILE_CHANGED) is raised.
        """
        with self._errors(key, "write"):
            obstore.put(self._store, key, _checked_chunks(source, sha256, size))

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFoundError."""
        with self._errors(key, "read"):
            return bytes(obstore.get(self._store, key).bytes())

    def chunks(self, key: str) -> Iterator[bytes]:
        """The object's bytes in chunks. Raises NotFoundError."""
        with self._errors(key, "read"):
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    def size(self, key: str) -> int | None:
        """Bytes of the object, None if there is none."""
        with self._errors(key, "read"):
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError:
                return None

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and size of every object below the folder `prefix`, in no particular order."""
        with self._errors(prefix, "list"):
            for batch in obstore.list(self._store, prefix=f"{prefix}/"):
                for item in batch:
                    yield item["path"], item["size"]

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below the folder `prefix`, sorted."""
        with self._errors(prefix, "list"):
            found = obstore.list_with_delimiter(self._store, prefix=f"{prefix}/")["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def unfinished(self) -> list[str]:
        """Parts that interrupted writes left behind, by path below the store; no reader ever sees them."""
        parts = self.folder.rglob("*#[0-9]*")
        return sorted(path.relative_to(self.folder).as_posix() for path in parts if path.is_file())

    @contextmanager
    def _errors(self, key: str, verb: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"the registry {self.url} has no object {key}") from error
        except (PermissionDeniedError, PermissionError) as error:
            raise PreconditionError(
                f"cannot {verb} {key} in the registry {self.url}: permission denied; check the rights on the folder",
                reason="NOT_PERMITTED",
            ) from error
        except BaseError as error:
            cause = str(error).partition("\n")[0]
            if "Permission denied" in str(error) or "Read-only file system" in str(error):
                raise PreconditionError(
                    f"cannot {verb} {key} in the registry {self.url}: not writable; check the rights on the folder",
                    reason="NOT_PERMITTED",
                ) from error
            raise UnavailableError(f"cannot {verb} {key} in the registry {self.url}: {cause}") from error


def damaged(what: str, key: str, url: str) -> DamagedError:
    """The error for content that is not what its digest says."""
    return DamagedError(
        f"{what} is damaged: {key} in {url} does not match its digest; "
        "run `loradeck registry verify`, restore the object from a copy, or delete it and push the same files again",
        metadata={"object": key},
    )


def local_folder(url: str | Path) -> Path:
    """The folder that `url` (a path or file://) names. Raises UnimplementedError for other stores, InvalidError."""
    text = str(url)
    if isinstance(url, Path) or "://" not in text:
        if not text.strip():
            raise InvalidError("the registry's name is empty: give a folder", field="registry")
        return Path(text).expanduser().absolute()
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if parts.scheme in _LATER_SCHEMES:
        raise UnimplementedError(
            f"registries on {parts.scheme}:// are not implemented yet; use a local folder (path or file://)"
        )
    raise InvalidError(f"bad registry {text[:120]!r}: give a folder path or file:// address", field="registry")


def open_store(url: str | Path, *, create: bool = False) -> Store:
    """The store at `url`. With `create`, an absent folder is made.

    Raises NotFoundError if the folder is absent, PreconditionError if it cannot be made or is not a folder.
    """
    folder = local_folder(url)
    if create:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PreconditionError(
                f"cannot make the registry folder {folder}: {error.strerror}; choose a writable place",
                reason="NOT_PERMITTED",
            ) from error
    if not folder.exists():
        raise NotFoundError(
            f"no registry at {folder}: the folder does not exist; make one with "
            f"`loradeck registry init --registry {folder}`",
            reason="NO_REGISTRY",
        )
    if not folder.is_dir():
        raise PreconditionError(f"{folder} is a file, not a registry folder", reason="NO_REGISTRY")
    return Store(str(folder), folder)


def _checked_chunks(source: Path, sha256: str, size: int) -> Iterator[bytes]:
    """The file's chunks; raises before the last one unless the whole has the digest, so that an upload aborts."""
    digest = hashlib.sha256()
    held: bytes | None = None
    total = 0
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            total += len(chunk)
            if held is not None:
                yield held
            held = chunk
    if digest.hexdigest() != sha256 or total != size:
        raise PreconditionError(
            f"{source.name} changed while it was being read; push again", reason="FILE_CHANGED", field="files"
        )
    yield held if held is not None else b""
