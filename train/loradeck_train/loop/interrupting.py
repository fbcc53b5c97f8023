"""Ctrl+C and SIGTERM: the step under way ends, a checkpoint is kept, and the run says how to go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedTraining(KeyboardInterrupt):
    """A run that was asked to stop and kept a checkpoint first. Its text says how to continue."""


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """Asks the trainer to save and stop at the end of the step in which the first signal came. A second signal ends the
    process at once, as if nobody had listened."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
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
        if self.signal is not None:
            control.should_save = state.global_step < state.max_steps
            control.should_training_stop = True
        return control

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._release()

    def _release(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
