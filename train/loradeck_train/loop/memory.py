"""Memory of a run: its peak above the start, and on the CPU what the C library keeps back of it."""

import ctypes
import threading
from types import TracebackType
from typing import Any, Self

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_PERIOD = 0.02
_GROWTH = 256 * 2**20


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


class HeapTrimmer(TrainerCallback):  # type: ignore[misc]
    """Gives free memory back to the system on the CPU whenever 256 MiB more are held than after the last time.

    Batches of many lengths leave the heap in pieces that glibc keeps: without this the memory of a run of the pocket
    base grows threefold in a hundred steps.
    """

    def __init__(self) -> None:
        self._trim: Any = None
        self._after = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not torch.cuda.is_available():
            # Of glibc alone; other C libraries keep less back.
            self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._after = held_bytes()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._trim is not None and held_bytes() > self._after + _GROWTH:
            self._trim(0)
            self._after = held_bytes()
