"""The object store: the few operations the registry needs, with obstore underneath and domain errors above."""

import errno
import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

from loradeck_registry.errors import DamagedError, NotFoundError, PreconditionError, UnavailableError
from loradeck_registry.stores import durable
from loradeck_registry.stores import local_files as files

if TYPE_CHECKING:
    from obstore.store import ObjectStore

CHUNK = 4 << 20
"""Bytes per read when a file streams in or out."""
MOST_BYTES = 32 << 20
"""Of an object that is read as a whole."""
PART = 16 << 20
"""Bytes per part of a multipart upload: 10,000 parts, the limit of S3, hold a file of 160 GB."""
_PARTS_AT_ONCE = 4
_FILES_AT_ONCE = 4
_SINGLE = 8 << 20
"""Up to this size a file goes up in one request."""
_RESUMES = 3
"""How often a broken download goes on where it stopped."""

Progress = Callable[[int], None]
"""Is told the bytes of each chunk that was moved."""


class Transfer(Protocol):
    """Is told how many bytes there will be, then of each chunk that is done with."""

    def expect(self, total: int) -> None: ...

    def __call__(self, size: int) -> None: ...


class Store:
    """Objects by key. `put_if_absent` is the one primitive that the registry's safety rests on."""

    def __init__(self, url: str, store: "ObjectStore", *, folder: Path | None = None) -> None:
        """`folder` is set for a local folder, which exists. Use `open_store`."""
        self.url = url
        self.folder = folder
        self._store = store

    @property
    def remote(self) -> bool:
        """Whether requests travel, so that several at once are worth while."""
        return self.folder is None

    @property
    def files_at_once(self) -> int:
        """How many files should move at a time."""
        return _FILES_AT_ONCE if self.remote else 1

    def put_if_absent(self, key: str, content: bytes, *, fleeting: bool = False) -> bool:
        """Create the object in one step; False, and nothing changed, if it exists. Of racing writers one gets True.

        A `fleeting` one need not outlive a power failure, because the process that it speaks for does not.
        """
        with self._errors(key, "write"):
            if self.folder is not None:
                return durable.put_if_absent(self.folder, key, content, sync=not fleeting)
            try:
                obstore.put(self._store, key, content, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def put_file(self, key: str, source: Path, sha256: str, size: int, progress: Progress | None = None) -> None:
        """Stream a local file in, under a key that names its content; a large one in parts.

        The bytes are hashed on the way: if the file is not what was announced, nothing becomes visible and
        PreconditionError (reason FILE_CHANGED) is raised.
        """
        chunks = _checked_chunks(source, sha256, size, progress)
        with self._errors(key, "write"):
            if self.folder is not None:
                durable.put(self.folder, key, chunks)
            elif size <= _SINGLE:
                obstore.put(self._store, key, b"".join(chunks), use_multipart=False)
            else:
                obstore.put(self._store, key, chunks, chunk_size=PART, max_concurrency=_PARTS_AT_ONCE)

    def get(self, key: str) -> bytes:
        """The object's bytes: a record's or a manifest's. Raises NotFoundError, DamagedError for one too large."""
        with self._errors(key, "read"):
            if self.folder is not None:
                content = files.read(self.folder, key, MOST_BYTES)
            else:
                found = obstore.get(self._store, key)
                content = bytes(found.bytes()) if found.meta["size"] <= MOST_BYTES else None
        if content is None:
            # Whoever may write there must not be able to fill the memory of everybody who reads.
            raise DamagedError(f"{key} has more than {MOST_BYTES >> 20} MiB: it is no record or manifest of a registry")
        return content

    def chunks(self, key: str) -> Iterator[bytes]:
        """The object's bytes in chunks. A broken transfer goes on where it stopped. Raises NotFoundError."""
        position = 0
        for attempt in range(_RESUMES + 1):
            try:
                with self._errors(key, "read"):
                    for chunk in self._stream(key, position):
                        position += len(chunk)
                        yield chunk
                return
            except UnavailableError:
                if attempt == _RESUMES or not self.remote:
                    raise

    def size(self, key: str) -> int | None:
        """Bytes of the object, None if there is none."""
        with self._errors(key, "read"):
            if self.folder is not None:
                return files.size(self.folder, key)
            try:
                return obstore.head(self._store, key)["size"]
            except FileNotFoundError as error:
                if _names_no_bucket(str(error)):
                    raise
                return None

    def entries(self, prefix: str) -> list[str]:
        """Names of the objects directly in the folder `prefix`, in no particular order; those of folders may be among
        them."""
        with self._errors(prefix, "list"):
            if self.folder is not None:
                return files.names(self.folder, prefix)
            found = obstore.list_with_delimiter(self._store, prefix=f"{prefix}/")["objects"]
        return [item["path"].rpartition("/")[2] for item in found]

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and size of every object below the folder `prefix`, in no particular order."""
        for key, size, _ in self.items(prefix):
            yield key, size

    def items(self, prefix: str) -> Iterator[tuple[str, int, datetime]]:
        """Key, size and time of the last change of every object below the folder `prefix`, in no particular order."""
        with self._errors(prefix, "list"):
            if self.folder is not None:
                yield from files.items(self.folder, prefix)
                return
            for batch in obstore.list(self._store, prefix=f"{prefix}/"):
                for item in batch:
                    yield item["path"], item["size"], item["last_modified"]

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below the folder `prefix`, sorted."""
        with self._errors(prefix, "list"):
            if self.folder is not None:
                return files.folders(self.folder, prefix)
            found = obstore.list_with_delimiter(self._store, prefix=f"{prefix}/")["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def delete(self, key: str) -> None:
        """Delete an object; none is no error."""
        with self._errors(key, "delete"), suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def is_empty(self) -> bool:
        """Whether it holds no object at all."""
        if self.folder is not None:
            return not any(self.folder.iterdir())
        with self._errors("", "list"):
            return not any(batch for batch in obstore.list(self._store, chunk_size=1))

    def unfinished(self) -> list[str]:
        """Parts that interrupted writes left behind in a folder, by path below it; no reader ever sees them."""
        if self.folder is None:
            return []
        parts = self.folder.rglob("*#[0-9]*")
        return sorted(path.relative_to(self.folder).as_posix() for path in parts if path.is_file())

    def _stream(self, key: str, position: int) -> Iterator[bytes]:
        options = {"range": {"offset": position}} if position else {}
        for chunk in obstore.get(self._store, key, options=options).stream(min_chunk_size=CHUNK):  # type: ignore[arg-type]
            yield bytes(chunk)

    def _errors(self, key: str, verb: str) -> "_Errors":
        return _Errors(self, key, verb)

    def _raise(self, error: BaseException, key: str, verb: str) -> None:
        """Raise the domain error for what the file system or the object store has raised."""
        try:
            raise error
        except FileNotFoundError as error:
            if _names_no_bucket(str(error)):
                raise self._no_bucket() from error
            raise NotFoundError(f"the registry {self.url} has no object {key}", metadata={"object": key}) from error
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            hint = "check the rights on the folder" if self.folder else "check the credentials and what they may do"
            raise PreconditionError(
                f"cannot {verb} {key} in the registry {self.url}: permission denied; {hint}",
                reason="NOT_PERMITTED",
            ) from error
        except OSError as error:
            if error.errno == errno.EROFS:
                raise self._not_writable(key, verb) from error
            raise UnavailableError(f"cannot {verb} {key} in the registry {self.url}: {error.strerror}") from error
        except BaseError as error:
            text = str(error)
            cause = text.partition("\n")[0]
            if "Permission denied" in text:
                raise self._not_writable(key, verb) from error
            if _names_no_bucket(text):
                raise self._no_bucket() from error
            if "169.254.169.254" in text or "metadata.google.internal" in text:
                raise no_credentials(self.url, "none in the environment, and no instance role answers") from error
            raise UnavailableError(f"cannot {verb} {key} in the registry {self.url}: {cause}") from error

    def _not_writable(self, key: str, verb: str) -> PreconditionError:
        return PreconditionError(
            f"cannot {verb} {key} in the registry {self.url}: not writable; check the rights on the folder",
            reason="NOT_PERMITTED",
        )

    def _no_bucket(self) -> NotFoundError:
        return NotFoundError(
            f"the bucket or container of {self.url} does not exist; make it first, or check its name, the region and "
            "the endpoint",
            reason="NO_BUCKET",
        )


class _Errors:
    """A block whose errors become domain errors. A class, because a small read is as quick as a generator's start."""

    __slots__ = ("_key", "_store", "_verb")

    def __init__(self, store: Store, key: str, verb: str) -> None:
        self._store = store
        self._key = key
        self._verb = verb

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._store._raise(error, self._key, self._verb)


def no_credentials(url: str, why: str) -> PreconditionError:
    """The error for an object store that cannot be asked for want of an account, key or role."""
    names = {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS",
        "gc": "GOOGLE_APPLICATION_CREDENTIALS",
        "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        "ab": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    }
    return PreconditionError(
        f"no credentials for {url} ({why}): set {names.get(url[:2], 'them')} in the environment, "
        "or run where a role gives them",
        reason="NO_CREDENTIALS",
    )


def damaged(what: str, key: str, url: str) -> DamagedError:
    """The error for content that is not what its digest says."""
    return DamagedError(
        f"{what} is damaged: {key} in {url} does not match its digest; "
        "run `loradeck registry verify`, restore the object from a copy, or delete it and push the same files again",
        metadata={"object": key},
    )


def _names_no_bucket(text: str) -> bool:
    return any(word in text for word in ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"))


def _checked_chunks(source: Path, sha256: str, size: int, progress: Progress | None) -> Iterator[bytes]:
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
                if progress is not None:
                    progress(len(held))
            held = chunk
    if digest.hexdigest() != sha256 or total != size:
        raise PreconditionError(
            f"{source.name} changed while it was being read; push again", reason="FILE_CHANGED", field="files"
        )
    yield held if held is not None else b""
    if progress is not None and held is not None:
        progress(len(held))
