"""Small reads from a local folder, straight from the file system.

The object store's own calls hand each request to a thread of theirs. That costs far more than a look-up of some
microseconds, of which a resolve is two, above all on a busy machine. Writes stay with the object store.
"""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path


def size(root: Path, key: str) -> int | None:
    """Bytes of a file, None if there is none."""
    try:
        state = os.stat(f"{root}/{key}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) else None


def read(root: Path, key: str, most: int) -> bytes | None:
    """All bytes of a file, None if they are more than `most`. Raises OSError."""
    with open(f"{root}/{key}", "rb", buffering=0) as file:
        return file.read() if os.fstat(file.fileno()).st_size <= most else None


def names(root: Path, prefix: str) -> list[str]:
    """Names of what lies directly in a folder, parts of writes (`#`) left out, in no particular order."""
    try:
        return [name for name in os.listdir(f"{root}/{prefix}") if "#" not in name]
    except (FileNotFoundError, NotADirectoryError):
        return []


def items(root: Path, prefix: str) -> Iterator[tuple[str, int, datetime]]:
    """Key, bytes and time of the last change of every file below a folder; parts of writes (`#`) are left out."""
    waiting = [prefix]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(f"{root}/{folder}"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            key = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                waiting.append(key)
            elif entry.is_file(follow_symlinks=False) and "#" not in entry.name:
                try:
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield key, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC)


def folders(root: Path, prefix: str) -> list[str]:
    """Names of the folders directly below a folder, sorted."""
    try:
        found = [entry.name for entry in os.scandir(f"{root}/{prefix}") if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found)
