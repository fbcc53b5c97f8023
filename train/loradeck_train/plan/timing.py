"""How long a training step takes: operations by a GPU's peak, or steps of a thin slice of the model taken here.

Matrix products alone say little of a CPU: small ones run far below its peak, and norms, rotations and optimizers cost
as much again. So one and two layers of the recipe's own model, with random weights, take a few real steps; what the
second layer adds, every further one will.
"""

import gc
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from loradeck_train.data.batches import IGNORED
from loradeck_train.loop.optimizers import plain_optimizer
from loradeck_train.model.build import equip, frozen_dtype
from loradeck_train.model.loading import device
from loradeck_train.plan.devices import Device
from loradeck_train.plan.setting import Setting
from loradeck_train.plan.simulation import quietly, random_model, simulable
from loradeck_train.plan.work import flops_per_step
from loradeck_train.recipe.settings import Recipe

_FLOPS = 4e10
"""Of one step of the slice: what a slow CPU does in less than a second."""
_BYTES = 2**30
"""Of the slice with gradients and optimizer, at most: larger models are left to the matrix products."""
_STEPS = 4
_SHORTEST = 32


@dataclass(frozen=True)
class Pace:
    """A step takes `per_flop` seconds for each operation of its passes, and `fixed` for optimizer and clipping."""

    per_flop: float
    fixed: float = 0.0

    def seconds(self, flops: float) -> float:
        """Of a step with so many operations."""
        return flops * self.per_flop + self.fixed


def pace_of(setting: Setting, recipe: Recipe, target: Device, attention: str, *, here: bool) -> Pace:
    """The pace of `recipe` on `target`: measured if that is this machine (`here`) and a slice of the model is small
    enough, else from the device's operations per second."""
    examples = len(setting.lengths)
    length = max(_SHORTEST, round(sum(n for n, _ in setting.lengths) / examples))
    learned = max(1, round(sum(n for _, n in setting.lengths) / examples))
    if not here or recipe.quantization is not None or _slice_bytes(setting, recipe) > _BYTES:
        return Pace(1 / target.flops)
    layers = int(setting.config["num_hidden_layers"])
    rows = recipe.optimisation.batch_size
    share = 2 / max(2, layers)
    whole = flops_per_step(setting, recipe, 0, rows * length, rows * learned, length)
    rows = max(1, min(rows, round(rows * _FLOPS / (whole * share))))
    few, more = (_slice(setting, recipe, attention, n, rows, length, min(learned, length - 1)) for n in (1, 2))
    passes, steps = (one + (layers - 1) * max(0.0, two - one) for one, two in zip(few[:2], more[:2], strict=True))
    flops = flops_per_step(setting, recipe, round(more[2] * layers / 2), rows * length, rows * learned, length)
    return Pace(passes / flops, steps)


def _slice_bytes(setting: Setting, recipe: Recipe) -> float:
    """Of two layers, embedding and head, with what training adds."""
    shapes = setting.shapes
    layers = int(setting.config["num_hidden_layers"])
    linear = sum(outputs * inputs for outputs, inputs in shapes.modules.values()) * 2 / layers
    matrices = shapes.rows * shapes.hidden * (1 if shapes.tied else 2)
    return (linear + matrices) * (16 if recipe.method == "full" else frozen_dtype(recipe).itemsize)


def _slice(
    setting: Setting, recipe: Recipe, attention: str, layers: int, rows: int, length: int, learned: int
) -> tuple[float, float, int]:
    """Seconds of forward and backward pass, of clipping and optimizer, and the adapter's parameters (0: full)."""
    gc.collect()
    with quietly(), torch.random.fork_rng():
        causal = random_model(setting.config, frozen_dtype(recipe), attention, layers).to(device())
        built = equip(simulable(recipe), causal, setting.task, None, attention)
        model = built.model.train()
        if recipe.gradient_checkpointing:
            causal.gradient_checkpointing_enable({"use_reentrant": False})
            causal.enable_input_require_grads()
        batch = _batch(setting, rows, length, learned)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = plain_optimizer(trained, recipe)
        taken = [_step(model, batch, recipe, trained, optimizer) for _ in range(_STEPS)]
    # The first step makes what later ones find ready.
    passes, steps = (statistics.median(values) for values in zip(*taken[1:], strict=True))
    adapter = 0 if recipe.method == "full" else sum(parameter.numel() for parameter in trained)
    return passes, steps, adapter


def _batch(setting: Setting, rows: int, length: int, learned: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, setting.shapes.vocabulary, (rows, length), generator=generator)
    if setting.task.added_tokens:
        ids[:, -1] = setting.task.added_tokens[0].id
    labels = ids.clone()
    labels[:, : length - learned] = IGNORED
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {name: tensor.to(device()) for name, tensor in batch.items()}


def _step(model: nn.Module, batch: dict[str, Any], recipe: Recipe, trained: list[Any], optimizer: Any) -> list[float]:
    started = _now()
    kind = torch.float16 if recipe.precision == "fp16" else torch.bfloat16
    with torch.autocast(device().type, kind, enabled=recipe.precision != "fp32"):
        loss = model(**batch).loss
    loss.backward()
    middle = _now()
    if recipe.optimisation.max_grad_norm:
        torch.nn.utils.clip_grad_norm_(trained, recipe.optimisation.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return [middle - started, _now() - middle]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
