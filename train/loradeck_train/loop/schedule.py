"""Optimizer steps of a run."""

import math
from dataclasses import dataclass

from loradeck_train.recipe.settings import OptimisationSettings


@dataclass(frozen=True)
class Schedule:
    """Steps of a run."""

    steps: int
    steps_per_epoch: int
    warmup_steps: int


def schedule_of(settings: OptimisationSettings, examples: int) -> Schedule:
    """Optimizer steps for `examples` training examples on one device."""
    batches = math.ceil(examples / settings.batch_size)
    per_epoch = math.ceil(batches / settings.gradient_accumulation_steps)
    steps = settings.max_steps or math.ceil(per_epoch * (settings.epochs or 0))
    warmup = settings.warmup_steps or math.ceil(steps * (settings.warmup_ratio or 0.0))
    return Schedule(max(steps, 1), per_epoch, warmup)
