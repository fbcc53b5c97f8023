"""Writes to a local folder that outlive a power failure, and appear whole or not at all.

The object store's own local writes leave it to the system when bytes reach the disk. A revision's record could then
survive a failure that its files do not. Here a file is on disk before it gets its name, and its name before the call
returns: what was written earlier is there whenever what was written later is.
"""

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def put_if_absent(root: Path, key: str, content: bytes, *, sync: bool = True) -> bool:
    """Create the file in one step; False, and nothing changed, if it exists. Raises OSError."""
    final = root / key
    if os.path.lexists(final):
        return False
    part = _write(root, final, [content], sync)
    try:
        os.link(part, final)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    if sync:
        _sync_folder(final.parent)
    return True


def put(root: Path, key: str, chunks: Iterable[bytes]) -> None:
    """Create the file, or replace it, in one step. Raises OSError, and what `chunks` raises; the part is gone then."""
    final = root / key
    part = _write(root, final, chunks, True)
    try:
        part.replace(final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(final.parent)


def _write(root: Path, final: Path, chunks: Iterable[bytes], sync: bool) -> Path:
    """A part beside its place, with a # in its name that no reader takes."""
    part = final.with_name(f"{final.name}#{uuid.uuid4().int % 10**12:012d}")
    try:
        file = part.open("xb")
    except FileNotFoundError:
        _make_folders(root, final.parent, sync)
        file = part.open("xb")
    try:
        with file:
            for chunk in chunks:
                file.write(chunk)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def _make_folders(root: Path, folder: Path, sync: bool) -> None:
    missing = []
    while folder != root and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir()
        if sync:
            _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
