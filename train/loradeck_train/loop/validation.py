"""Looks at the validation rows on the way: the best weights are kept, and a run that gets no better ends."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loradeck_train.loop.sealing import complete_checkpoints, write_checkpoint
from loradeck_train.loop.world import World
from loradeck_train.model.sharding import gathered, scatter
from loradeck_train.recipe.evaluation import EvaluationSettings

STATE = "validation.json"
BEST = "best"
_WEIGHTS = "trained.safetensors"


@dataclass
class Looks:
    """What the looks so far have found; goes into every checkpoint."""

    best_loss: float | None = None
    best_step: int | None = None
    without_improvement: int = 0


class ValidationLooks(TrainerCallback):  # type: ignore[misc]
    """Measures every `settings.every_steps` and at the end, tells `note`, and keeps the best trained weights in
    `folder`, which all processes of a run see and the first one writes."""

    def __init__(
        self,
        settings: EvaluationSettings,
        measure: Callable[[], float | None],
        note: Callable[[int, float], None],
        folder: Path,
    ) -> None:
        self.looks = Looks()
        self._settings = settings
        self._measure = measure
        self._note = note
        self._folder = folder
        self.stopped_early = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        every = self._settings.every_steps
        if every is not None and (state.global_step % every == 0 or state.global_step == state.max_steps):
            self._look(state.global_step, kwargs["model"])
            patience = self._settings.patience
            if patience is not None and self.looks.without_improvement >= patience:
                self.stopped_early = True
                control.should_training_stop = True
        return control

    def _look(self, step: int, model: nn.Module) -> None:
        loss = self._measure()
        assert loss is not None, "a recipe that looks has validation rows"
        # One opinion for all processes of a run, whatever their last digits are.
        loss = World.here().collect(loss)[0]
        self._note(step, loss)
        looks = self.looks
        if looks.best_loss is not None and not loss < looks.best_loss - self._settings.min_improvement:
            looks.without_improvement += 1
            return
        self.looks = Looks(loss, step, 0)
        if self._settings.keep_best:
            weights = gathered(model)
            if World.here().main:
                write_checkpoint(self._folder, step, lambda aside: save_file(weights, str(aside / _WEIGHTS)))

    def write_state(self, folder: Path) -> None:
        """Put what was found into a checkpoint, and remove weights that neither it nor a later one can ask for."""
        (folder / STATE).write_text(json.dumps(asdict(self.looks)))
        if self.looks.best_step is not None:
            for path in complete_checkpoints(self._folder):
                if int(path.name.rpartition("-")[2]) < self.looks.best_step:
                    shutil.rmtree(path)

    def read_state(self, folder: Path) -> None:
        """Go on from what a checkpoint knows. Weights that are no longer there are no best weights."""
        if (folder / STATE).is_file():
            self.looks = Looks(**json.loads((folder / STATE).read_text()))
        if self._settings.keep_best and self.looks.best_step is not None and self._best() is None:
            self.looks = Looks()

    def load_best(self, model: nn.Module, last_step: int) -> bool:
        """Put the best weights into `model` unless they are those of the last step; says whether it did."""
        if not self._settings.keep_best or self.looks.best_step == last_step:
            return False
        World.here().collect(None)  # The first process has written by now what all read.
        best = self._best()
        if best is None:
            return False
        scatter(model, load_file(str(best / _WEIGHTS)))
        return True

    def _best(self) -> Path | None:
        found = [p for p in complete_checkpoints(self._folder) if p.name.endswith(f"-{self.looks.best_step}")]
        return found[0] if found else None
