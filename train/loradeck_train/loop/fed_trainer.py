"""transformers.Trainer with our batches, sealed checkpoints, and a look at every step."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer_callback import ExportableState

from loradeck_train.data.encoding import Encoded
from loradeck_train.loop.evaluation import loss_per_token
from loradeck_train.loop.feeding import Feed
from loradeck_train.loop.guards import LossGuard, WeightsMoved
from loradeck_train.loop.optimizers import lora_plus
from loradeck_train.loop.sealing import keep_newest, write_checkpoint
from loradeck_train.loop.validation import ValidationLooks
from loradeck_train.loop.world import World
from loradeck_train.model.sharding import gathered, load_whole_state, scatter, whole_state
from loradeck_train.recipe.settings import Recipe

CHECKPOINTS = "checkpoints"
_PARTS = ".parts-"
_TRAINED, _OPTIMIZER, _SCHEDULER = "trained.safetensors", "optimizer.pt", "scheduler.pt"
_FIRST_STEPS = 5
_SHOWN = 3


class FedTrainer(Trainer):  # type: ignore[misc]
    """Takes its order and its batches from `feed`."""

    optimizer: Any

    def __init__(self, *, recipe: Recipe, feed: Feed, console: Console, **kwargs: Any) -> None:
        super().__init__(train_dataset=feed.dataset, data_collator=feed.collator, **kwargs)
        self._recipe = recipe
        self._feed = feed
        self._console = console
        self._guard = LossGuard(recipe.optimisation.learning_rate)
        self._before: WeightsMoved | None = None
        self._look_at = 0
        self._rows: list[int] = []
        self._looks: ValidationLooks | None = None
        self._sharded = World.here().sharding == "fsdp"
        if self._sharded:
            # The weights are spread already: accelerate adds its autocast, and no copy per process.
            self.accelerator.prepare_model = partial(
                self.accelerator.prepare_model, device_placement=False, evaluation_mode=True
            )

    def _move_model_to_device(self, model: torch.nn.Module, device: torch.device) -> None:
        if World.here().sharding is None:
            super()._move_model_to_device(model, device)

    def look(self, looks: ValidationLooks) -> None:
        """Let `looks` take part in the steps and in the checkpoints."""
        self._looks = looks
        self.add_callback(looks)

    def continue_order(self, checkpoint: Path, steps_per_epoch: int) -> None:
        """Take the order of the epoch that `checkpoint` is in: behind skipped batches of several processes accelerate
        does not reach the sampler, and the first epoch's order would come again."""
        done = int(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])
        self._feed.sampler.set_epoch(done // steps_per_epoch)

    def loss_on(self, examples: Sequence[Encoded]) -> float | None:
        """Cross-entropy by learned token on held-out examples; None if there are none."""
        if not len(examples):
            return None
        recipe = self._recipe
        return loss_per_token(self.model, examples, bf16=recipe.precision == "bf16", learn_prompt=recipe.loss == "all")

    def create_optimizer(self, *arguments: Any) -> Any:
        """The trainer's own, or LoRA+'s."""
        if self.optimizer is None and self._recipe.method == "lora" and self._recipe.adapter.loraplus_ratio is not None:
            self.optimizer = lora_plus(self.model, self._recipe)
        return super().create_optimizer(*arguments)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self._feed.sampler

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        # The estimate walks over all modules at every step, and nobody reads it.
        return 0

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._before is None:
            self._before = WeightsMoved(self.model)
            self._look_at = min(
                self.state.global_step + _FIRST_STEPS + int(self.args.warmup_steps), self.state.max_steps
            )
        self._rows += inputs.pop("rows")
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Look at the step before anybody is told of it."""
        if "loss" in logs:
            step = self.state.global_step
            self._guard.check(step, logs["loss"], float(logs.get("grad_norm", 0.0)), self._rows)
            self._rows = []
            if self._before is not None and step == self._look_at:
                self._tell_unmoved(self._before.unmoved(self.model))
        super().log(logs, start_time)

    def _tell_unmoved(self, names: list[str]) -> None:
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            self._console.print(
                f"the first steps did not change {len(names)} trained tensors: {', '.join(names[:_SHOWN])}{more}",
                highlight=False,
            )

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        shards = (gathered(self.model), whole_state(self.optimizer)) if self._sharded else None
        folder, step = Path(self.args.output_dir), self.state.global_step
        parts: Path | None = None
        if self.is_deepspeed_enabled:
            # Its engine writes from all processes, into a folder that the first one moves into the checkpoint.
            parts = Path(World.here().collect(str(folder / f"{_PARTS}{step}"))[0])
            self.model_wrapped.save_checkpoint(str(parts), exclude_frozen_parameters=True)
        random_states = World.here().collect(self._random_state())
        if not World.here().main:
            return
        write_checkpoint(folder, step, lambda aside: self._write_state(aside, random_states, shards, parts))
        keep_newest(folder, self._recipe.checkpoints.keep)

    def _random_state(self) -> dict[str, bytes]:
        """The trainer's file of this process's random states."""
        with tempfile.TemporaryDirectory() as folder:
            self._save_rng_state(folder)
            return {path.name: path.read_bytes() for path in Path(folder).iterdir()}

    def _write_state(
        self,
        folder: Path,
        random_states: list[dict[str, bytes]],
        shards: tuple[dict[str, Any], Any] | None,
        parts: Path | None,
    ) -> None:
        """What the trainer's own method writes, into `folder`, for all processes."""
        if parts is not None:
            for path in parts.iterdir():
                shutil.move(str(path), folder / path.name)
            parts.rmdir()
            torch.save(self.lr_scheduler.state_dict(), folder / _SCHEDULER)
        elif shards is None:
            self.save_model(str(folder), _internal_call=True)
            self._save_optimizer_and_scheduler(str(folder))
        else:
            save_file(shards[0], str(folder / _TRAINED))
            torch.save(shards[1], folder / _OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), folder / _SCHEDULER)
        self._save_scaler(str(folder))
        for files in random_states:
            for name, content in files.items():
                (folder / name).write_bytes(content)
        for exported in [*self.callback_handler.callbacks, self.control]:
            if isinstance(exported, ExportableState):
                self.state.stateful_callbacks[type(exported).__name__] = exported.state()
        if self._looks is not None:
            self._looks.write_state(folder)
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._sharded:
            scatter(self.model, load_file(str(Path(resume_from_checkpoint) / _TRAINED)))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self._sharded or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_whole_state(self.optimizer, torch.load(Path(checkpoint) / _OPTIMIZER, weights_only=True))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / _SCHEDULER, weights_only=True))
