"""Who uses what in a cache: one locked file per process, which the system unlocks however the process ends.

A holder is a pair of files in `holders/`: `<id>.lock`, locked while its process lives, and `<id>.held`, one digest a
line. What is held is written, and what may be evicted is chosen, under the cache's own lock (`lock`), so that of the
two one always sees the other. Whoever dies, by SIGKILL too, holds nothing from then on.
"""

import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

_WAIT = 60.0
"""Seconds; the cache's lock is held for a few milliseconds at a time."""


class Holder:
    """What this process uses of one cache. Safe for many threads; a forked child gets a holder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._lock: FileLock | None = None
        self._process = 0
        self.id = ""

    def hold(self, digests: Iterable[str]) -> None:
        """Keep what has these digests from eviction until it is released as often as it was held."""
        with self._guard:
            self._begin()
            before = len(self._counts)
            self._counts.update(digests)
            if len(self._counts) != before:
                self._write()

    def release(self, digests: Iterable[str]) -> None:
        """Undo `hold`; what is not held is no error."""
        with self._guard:
            if self._process != os.getpid():
                return
            before = len(self._counts)
            for digest in digests:
                self._counts[digest] -= 1
                if self._counts[digest] <= 0:
                    del self._counts[digest]
            if len(self._counts) != before:
                self._write()

    def drop(self, digest: str) -> None:
        """Hold it no more, however often it was held."""
        with self._guard:
            if self._process == os.getpid() and self._counts.pop(digest, 0):
                self._write()

    def start(self) -> str:
        """This process's identifier in the cache, made and locked if need be."""
        with self._guard:
            self._begin()
            return self.id

    def _begin(self) -> None:
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._counts.clear()
        self.id = f"{self._process}-{uuid.uuid4().hex}"
        place = self._folder / "holders"
        place.mkdir(parents=True, exist_ok=True)
        with cache_lock(self._folder):
            self._lock = FileLock(place / f"{self.id}.lock", thread_local=False)
            self._lock.acquire()

    def _write(self) -> None:
        path = self._folder / "holders" / f"{self.id}.held"
        part = path.with_suffix(".part")
        with cache_lock(self._folder):
            part.write_text("".join(f"{digest}\n" for digest in self._counts))
            part.replace(path)


def cache_lock(folder: Path) -> FileLock:
    """The cache's own lock, for a few milliseconds of work."""
    return FileLock(folder / "lock", timeout=_WAIT, poll_interval=0.005)


def held(folder: Path) -> tuple[set[str], set[str]]:
    """The digests that live processes hold, and those processes' identifiers. Call it under `cache_lock`.

    What dead processes have left is removed.
    """
    digests: set[str] = set()
    alive: set[str] = set()
    for path in sorted((folder / "holders").glob("*.lock")):
        names = path.with_suffix(".held")
        probe = FileLock(path, timeout=0)
        try:
            probe.acquire()
        except Timeout:
            alive.add(path.stem)
            if names.exists():
                digests |= set(names.read_text().split())
            continue
        names.unlink(missing_ok=True)
        path.with_suffix(".part").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        probe.release()
    return digests, alive
