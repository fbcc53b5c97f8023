"""Resident memory of a child and all it started, over time."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psutil

_PERIOD = 0.02
_POINTS = 60


@dataclass(frozen=True)
class Sample:
    """Bytes held at a time in seconds from the start, and what the process was doing then."""

    seconds: float
    bytes: int
    phase: str


class MemoryTrace:
    """Context that samples a process tree every 20 ms. Short peaks between two samples are missed, on every side of a
    comparison alike. `phase` is asked at every sample what the process is doing."""

    def __init__(self, pid: int, phase: Callable[[], str] = lambda: "") -> None:
        self.samples: list[Sample] = []
        self._process = psutil.Process(pid)
        self._phase = phase
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-trace", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def peak_bytes(self, *phases: str) -> int | None:
        """The most that was held in these phases, or at all if none is named; None if there was no such moment."""
        return max((s.bytes for s in self.samples if not phases or s.phase in phases), default=None)

    def points(self, above: int = 0) -> list[dict[str, Any]]:
        """At most 60 points of seconds and bytes over `above`, each the peak of its stretch."""
        size = max(1, -(-len(self.samples) // _POINTS))
        stretches = [self.samples[i : i + size] for i in range(0, len(self.samples), size)]
        tops = [max(stretch, key=lambda sample: sample.bytes) for stretch in stretches]
        return [{"seconds": round(t.seconds, 2), "bytes": max(0, t.bytes - above), "phase": t.phase} for t in tops]

    def _sample(self) -> None:
        while not self._stop.wait(_PERIOD):
            held = 0
            with contextlib.suppress(psutil.Error):
                for process in [self._process, *self._process.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        held += process.memory_info().rss
            self.samples.append(Sample(time.monotonic() - self._started, held, self._phase()))
