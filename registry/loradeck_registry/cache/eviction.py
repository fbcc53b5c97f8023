"""Eviction: what has not been used for longest goes, until the cache is within its limit; what is in use stays."""

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.cache.holds import cache_lock, held


@dataclass(frozen=True)
class _Entry:
    """A revision's folder, or a file of no revision. It is held by its digest, and its files are by inode and bytes."""

    path: Path
    used: float
    files: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Evicted:
    """What an eviction did. Revisions and single files that went, and the bytes in the cache before and after."""

    gone: tuple[str, ...]
    before: int
    after: int


def evict(folder: Path, limit: int) -> Evicted:
    """Bring a cache down to `limit` bytes, or as near as what live processes hold allows, the longest unused first.

    What goes is chosen and moved aside under the cache's lock, which is needed to take anything into use as well, and
    deleted after. Also clears what dead processes have left in `tmp`.
    """
    if not folder.is_dir():
        return Evicted((), 0, 0)
    with cache_lock(folder):
        in_use, alive = held(folder)
        aside = folder / "tmp" / f"evicted.{uuid.uuid4().hex}"
        aside.mkdir(parents=True)
        waste = [path for path in _within(folder / "tmp") if path.name.partition(".")[0] not in alive]
        before, gone, freed = _move_aside(folder, limit, in_use, aside)
    for path in waste:
        shutil.rmtree(path, ignore_errors=True)
    return Evicted(tuple(gone), before, before - freed)


def _move_aside(folder: Path, limit: int, in_use: set[str], aside: Path) -> tuple[int, list[str], int]:
    revisions = [_revision(path) for path in _within(folder / "revisions")]
    blobs = {state.st_ino: (path, state) for path in _blobs(folder) for state in [path.stat()]}
    users = Counter(inode for entry in revisions for inode in {inode for inode, _ in entry.files})
    sizes = {inode: state.st_size for inode, (_, state) in blobs.items()}
    sizes |= {inode: size for entry in revisions for inode, size in entry.files}
    loose = [
        _Entry(path, state.st_mtime, ((inode, state.st_size),))
        for inode, (path, state) in blobs.items()
        if not users[inode]
    ]
    before = sum(sizes.values())
    freed = 0
    gone: list[str] = []
    for entry in sorted((*revisions, *loose), key=lambda entry: entry.used):
        if before - freed <= limit:
            break
        if entry.path.name in in_use:
            continue
        entry.path.rename(aside / entry.path.name)
        gone.append(entry.path.name)
        for inode in {inode for inode, _ in entry.files}:
            users[inode] -= 1
            if users[inode] > 0:
                continue
            blob = blobs.get(inode)
            if blob is not None and blob[0] != entry.path:
                if blob[0].name in in_use:
                    continue
                blob[0].rename(aside / f"file-{blob[0].name}")
            freed += sizes[inode]
    return before, gone, freed


def _revision(path: Path) -> _Entry:
    states = [file.stat() for file in path.rglob("*") if file.is_file()]
    return _Entry(path, path.stat().st_mtime, tuple((state.st_ino, state.st_size) for state in states))


def _blobs(folder: Path) -> Iterator[Path]:
    for part in _within(folder / "blobs"):
        yield from _within(part)


def _within(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
