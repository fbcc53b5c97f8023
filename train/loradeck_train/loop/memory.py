"""Peak memory of a stretch of work: resident memory above its start, or the CUDA allocator's peak."""

import threading
from types import TracebackType
from typing import Self

import psutil
import torch

_PERIOD = 0.02


class PeakMemory:
    """Context that measures the peak in bytes over the memory held when it was entered.

    On the CPU it samples the process's resident memory every 20 ms; importing torch costs hundreds of MiB, so only the
    difference says something about a run. On a GPU it is the allocator's own peak, which misses nothing.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = psutil.Process()

    def __enter__(self) -> Self:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
            return self
        self._start = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            self.peak_bytes = torch.cuda.max_memory_allocated() - self._start
            return
        self._stop.set()
        self._thread.join()
        self._look()

    def _sample(self) -> None:
        while not self._stop.wait(_PERIOD):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss - self._start)


def held_bytes() -> int:
    """Bytes that this process holds now: resident memory, or what the CUDA allocator has given out."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return int(psutil.Process().memory_info().rss)
