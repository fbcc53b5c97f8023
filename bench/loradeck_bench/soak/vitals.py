"""The server's vitals: memory and open files of all its processes, and what its metrics say of work and tasks."""

import asyncio
import contextlib
import re
import statistics
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

EVERY = 5.0
"""Seconds between two looks at the memory."""
_LINE = re.compile(r"^(loradeck_\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Vital:
    """One look. `resident` and `files` by process name and id."""

    time: float
    resident: dict[str, int]
    files: dict[str, int]

    @property
    def total(self) -> int:
        """Resident bytes of all processes."""
        return sum(self.resident.values())


def look(pid: int, time: float) -> Vital:
    """All processes below `pid`, which is that of the guard."""
    import psutil

    resident, files = {}, {}
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            name = f"{process.name()}-{process.pid}"
            resident[name] = process.memory_info().rss
            files[name] = process.num_fds()
    return Vital(time, resident, files)


@dataclass
class Watch:
    """Looks again and again while the load runs."""

    pid: int
    now: Callable[[], float]
    vitals: list[Vital] = field(default_factory=list)

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            self.vitals.append(await asyncio.to_thread(look, self.pid, self.now()))
            await asyncio.sleep(EVERY)


def growth(vitals: Sequence[Vital]) -> dict[str, Any]:
    """Resident memory: medians of the first and the last third of the looks, and by which share it grew.

    Raises ValueError with fewer than three looks.
    """
    third = max(1, len(vitals) // 3)
    if len(vitals) < 3:
        raise ValueError("at least three looks at the memory are needed")
    first = statistics.median(v.total for v in vitals[:third])
    last = statistics.median(v.total for v in vitals[-third:])
    by_process = {
        name: last_one - vitals[0].resident[name]
        for name, last_one in vitals[-1].resident.items()
        if name in vitals[0].resident
    }
    return {
        "first_bytes": int(first),
        "last_bytes": int(last),
        "growth": last / first - 1,
        "grown_bytes_by_process": by_process,
    }


def scrape(metrics: str) -> dict[str, float]:
    """The metrics of a server, each summed over its labels."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found: dict[str, float] = {}
    for name, value in _LINE.findall(text):
        found[name] = found.get(name, 0.0) + float(value)
    return found
