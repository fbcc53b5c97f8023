"""Optimizer steps of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loradeck_train.data.filling import fill_rows
from loradeck_train.loop.world import World
from loradeck_train.recipe.optimisation import OptimisationSettings
from loradeck_train.recipe.settings import Recipe


@dataclass(frozen=True)
class Schedule:
    """Steps of a run."""

    steps: int
    steps_per_epoch: int
    warmup_steps: int


def plan_schedule(recipe: Recipe, lengths: Sequence[int], max_length: int) -> Schedule:
    """Optimizer steps for training examples of these lengths; under `packing: fill` a batch counts rows."""
    filled = recipe.packing == "fill"
    return schedule_of(
        recipe.optimisation, len(fill_rows(lengths, max_length, recipe.seed)) if filled else len(lengths)
    )


def schedule_of(settings: OptimisationSettings, examples: int) -> Schedule:
    """Optimizer steps for `examples` training examples, or filled rows of them, over the processes of this run."""
    batches = math.ceil(examples / (settings.batch_size * World.here().size))
    per_epoch = math.ceil(batches / settings.gradient_accumulation_steps)
    steps = settings.max_steps or math.ceil(per_epoch * (settings.epochs or 0))
    warmup = settings.warmup_steps or math.ceil(steps * (settings.warmup_ratio or 0.0))
    return Schedule(max(steps, 1), per_epoch, warmup)
