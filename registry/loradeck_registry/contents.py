"""What a file of a revision holds, whichever way the store keeps it: whole, or as its difference to other files."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry import layout
from loradeck_registry.delta.decoding import read_delta
from loradeck_registry.delta.record import Stored, is_whole, read_record
from loradeck_registry.errors import DamagedError, NotFoundError
from loradeck_registry.manifest import File
from loradeck_registry.stores.store import Progress, Store, damaged

Sources = Callable[[Stored], Path]
"""Gives a local copy of a blob that the store keeps whole. Raises NotFoundError, DamagedError."""


@dataclass(frozen=True)
class Content:
    """A file's bytes, not yet verified, and the object that they are read from first."""

    key: str
    chunks: Iterator[bytes]


def open_content(store: Store, sha256: str, sources: Sources) -> Content:
    """The bytes of the file with this digest. Raises NotFoundError naming the object, also while it is read."""
    key = layout.blob(sha256)
    try:
        return Content(key, _begun(store.chunks(key)))
    except NotFoundError as error:
        try:
            record = read_record(store, sha256)
        except NotFoundError:
            raise error from None
    body = store.chunks(layout.blob(record.body.sha256))
    return Content(layout.delta(sha256), read_delta(record, body, [sources(source) for source in record.sources]))


def is_stored(store: Store, sha256: str, size: int) -> bool:
    """Whether the file can be read, as far as sizes tell: it is there whole, or all that its delta needs is."""
    there = store.size(layout.blob(sha256))
    if there is not None:
        return there == size
    try:
        return is_whole(store, read_record(store, sha256))
    except (NotFoundError, DamagedError):
        return False


def stored_bytes(store: Store, file: File) -> int:
    """Bytes that the store keeps of a file alone: all of it, or its delta without the sources, which others need too.

    Raises NotFoundError if it has none of it.
    """
    if store.size(layout.blob(file.sha256)) is not None:
        return file.size
    record = read_record(store, file.sha256)
    return record.body.size + (store.size(layout.delta(file.sha256)) or 0)


def fetch(
    store: Store, file: File, target: Path, what: str, sources: Sources, progress: Progress | None = None
) -> None:
    """Write a file to `target`, verified as it is read. Raises DamagedError, NotFoundError, and leaves no `target`.

    `progress` is told the file's bytes, however few of them the store keeps.
    """
    digest = hashlib.sha256()
    key = layout.blob(file.sha256)
    try:
        content = open_content(store, file.sha256, sources)
        key = content.key
        with target.open("wb") as out:
            for chunk in content.chunks:
                digest.update(chunk)
                out.write(chunk)
                if progress is not None:
                    progress(len(chunk))
        if digest.hexdigest() != file.sha256:
            raise damaged(what, key, store.url)
    except NotFoundError as error:
        target.unlink(missing_ok=True)
        missing = error.metadata.get("object", key)
        raise NotFoundError(
            f"{what} is missing: {missing} is not in {store.url}; run `loradeck registry verify`, restore the object "
            "from a copy, or push the same files again",
            reason="MISSING_OBJECT",
            metadata={"object": missing},
        ) from error
    except DamagedError as error:
        target.unlink(missing_ok=True)
        if "object" in error.metadata:
            raise
        raise damaged(what, key, store.url) from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, the first of which has been read: what does not exist is known now."""
    first = next(chunks, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from chunks

    return rest()
