"""Ctrl+C and SIGTERM: the step under way ends, a checkpoint is kept, and the run says how to go on."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loradeck_train.loop.world import World

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO = 2.0
"""Seconds in which a launcher passes on the Ctrl+C that its processes have had from the terminal already."""


class InterruptedTraining(KeyboardInterrupt):
    """A run that was asked to stop and kept a checkpoint first. Its text says how to continue."""


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """Asks the trainer to save and stop at the end of the step in which the first signal came. A second signal ends the
    process at once, as if nobody had listened. The processes of a run stop after the same step."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._noted = 0.0
        self._former: dict[int, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the block runs; threads other than the main one cannot, and leave them alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._former = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            self._release()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        number = World.here().any(0 if self.signal is None else self.signal)
        if number:
            self.signal = signal.Signals(number)
            control.should_save = state.global_step < state.max_steps
            control.should_training_stop = True
        return control

    def _note(self, number: int, frame: FrameType | None) -> None:
        if World.here().size > 1 and self.signal is not None and time.monotonic() - self._noted < _ECHO:
            return
        if self.signal is not None:
            self._release()
            os.kill(os.getpid(), number)
            return
        self.signal, self._noted = signal.Signals(number), time.monotonic()
        if World.here().size == 1:
            self._release()

    def _release(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
