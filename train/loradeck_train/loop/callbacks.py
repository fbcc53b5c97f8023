"""Watching a run: progress on the terminal and the history file."""

import json
import time
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loradeck_registry.errors import PreconditionError
from loradeck_train.loop.disk import writing
from loradeck_train.loop.memory import held_bytes

_QUIET_PERIOD = 15.0


class HistoryWriter(TrainerCallback):  # type: ignore[misc]
    """Keeps every logged step, and appends it to a JSONL file: step, epoch, loss, learning_rate, gradient_norm, tokens,
    seconds since the start of this process's training, and resident memory (GPU: allocated) in bytes."""

    def __init__(self, path: Path, resumed: bool) -> None:
        self.entries: list[dict[str, float]] = []
        self.validations: list[dict[str, float]] = []
        """Step, validation_loss and seconds of each look on the way; lines of the same file."""
        self.tokens_before = 0
        """Tokens that went through the model before this process, in a resumed run."""
        self._path = path
        self._started = time.monotonic()
        if resumed and path.is_file():
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            self.entries = [line for line in lines if "loss" in line]
            self.validations = [line for line in lines if "validation_loss" in line]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.monotonic()
        self.tokens_before = int(state.num_input_tokens_seen)
        # A resumed run repeats the steps since its checkpoint: their old entries go.
        self.entries = [entry for entry in self.entries if entry["step"] <= state.global_step]
        self.validations = [entry for entry in self.validations if entry["step"] <= state.global_step]
        lines = sorted([*self.entries, *self.validations], key=lambda entry: entry["step"])
        with writing("the history", self._path.parent):
            # Replaced as one: a kill in between would lose the losses of the steps that were kept.
            fresh = self._path.with_name(f".{self._path.name}.new")
            fresh.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
            fresh.replace(self._path)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        entry = {
            "step": state.global_step,
            "epoch": round(float(state.epoch or 0.0), 4),
            "loss": float(logs["loss"]),
            "learning_rate": float(logs["learning_rate"]),
            "gradient_norm": float(logs.get("grad_norm", 0.0)),
            "tokens": int(state.num_input_tokens_seen),
            "seconds": round(time.monotonic() - self._started, 3),
            "memory_bytes": held_bytes(),
        }
        self.entries.append(entry)
        self._append(entry)

    def note_validation(self, step: int, loss: float) -> None:
        """Keep a look at the validation rows."""
        seconds = round(time.monotonic() - self._started, 3)
        self.validations.append({"step": step, "validation_loss": loss, "seconds": seconds})
        self._append(self.validations[-1])

    def _append(self, entry: dict[str, float]) -> None:
        with writing("the history", self._path.parent), self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


class History(Protocol):
    """Where the latest figures are read from."""

    entries: list[dict[str, float]]
    validations: list[dict[str, float]]


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """A bar with loss, learning rate, tokens per second and time left; plain lines where there is no terminal."""

    def __init__(self, history: History, title: str, console: Console) -> None:
        self._history = history
        self._title = title
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._bar: TaskID | None = None
        self._last_line = time.monotonic()
        self._started = 0.0
        self._tokens_before = 0
        self._steps_before = 0
        self._shown = -1.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = self._last_line = time.monotonic()
        self._tokens_before = int(state.num_input_tokens_seen)
        self._steps_before = state.global_step
        if self._console.is_terminal:
            self._bar = self._progress.add_task(
                self._title, total=state.max_steps, completed=state.global_step, figures=""
            )
            self._progress.start()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._history.entries or self._history.entries[-1]["step"] == self._shown:
            return
        self._shown = self._history.entries[-1]["step"]
        entry = self._history.entries[-1]
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = (state.num_input_tokens_seen - self._tokens_before) / seconds
        figures = (
            f"loss {entry['loss']:.3f}  lr {entry['learning_rate']:.1e}  {rate:,.0f} tokens/s  "
            f"{entry['memory_bytes'] / 2**30:.1f} GiB"
        )
        if self._history.validations:
            figures += f"  validation {self._history.validations[-1]['validation_loss']:.3f}"
        if self._bar is not None:
            self._progress.update(self._bar, completed=state.global_step, figures=figures)
        elif time.monotonic() - self._last_line >= _QUIET_PERIOD or state.global_step == state.max_steps:
            self._last_line = time.monotonic()
            left = seconds / max(state.global_step - self._steps_before, 1) * (state.max_steps - state.global_step)
            self._console.print(
                f"{self._title}  step {state.global_step}/{state.max_steps}  {figures}  {left:.0f} s left",
                highlight=False,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was; also after an error."""
        if self._bar is not None:
            self._progress.stop()


def board(wanted: bool, output: Path) -> list[TrainerCallback]:
    """TensorBoard's callback, writing to `output/tensorboard`, if it is wanted. Raises PreconditionError
    (MISSING_PACKAGE) without the package."""
    if not wanted:
        return []
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise PreconditionError(
            "tensorboard: true needs a package that is not installed: pip install 'loradeck[tensorboard]'",
            reason="MISSING_PACKAGE",
            field="tensorboard",
        ) from None
    from transformers.integrations import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(log_dir=str(output / "tensorboard")))]
