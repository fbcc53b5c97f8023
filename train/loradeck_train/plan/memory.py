"""Memory of a run before it starts: what stays, what a step adds, and the peaks of loading and of checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from loradeck_tasks.task import Task
from loradeck_train.plan.simulation import Batch, Step, simulate
from loradeck_train.recipe.settings import Recipe

_MIB = 2**20
_OPTIMIZER_BYTES = {
    "adamw": 8.0,
    "adamw_8bit": 2.0,
    "paged_adamw_8bit": 2.0,
    "paged_adamw_32bit": 8.0,
    "adafactor": 0.1,
    "sgd": 0.0,
}
"""Of state per trained parameter."""
_CPU_OVERHEAD = 80 * _MIB
"""What the process needs beside tensors, on the CPU: modules imported late, thread buffers, kernel caches."""
_HEAP = 1.2
"""Of the CPU's heap: memory held by memory that activations need, as what is freed between them stays in pieces."""
_CUDA_ALLOCATOR = 1.05


@dataclass(frozen=True)
class Memory:
    """Bytes above the process with everything imported. `peak` is the largest of the three peaks."""

    weights: int
    """Of the base as held, and of the adapter."""
    gradients: int
    optimizer: int
    activations: int
    logits: int
    load_peak: int
    """The file beside the weights that are read from it."""
    step_peak: int
    checkpoint_peak: int
    """Weights and optimizer, and what is written of the weights."""
    peak: int

    def as_json(self) -> dict[str, int]:
        """Figures for programs."""
        return asdict(self)


def estimate_memory(
    recipe: Recipe,
    config: Mapping[str, Any],
    task: Task,
    batch: Batch,
    *,
    attention: str,
    file_bytes: int,
    cuda: bool,
) -> tuple[Memory, Step]:
    """The memory of `recipe` at its largest batch. `file_bytes` of the base on disk are mapped while it is loaded."""
    step = simulate(recipe, config, task, batch, attention)
    frozen = step.frozen_bytes
    if recipe.quantization is not None:
        frozen = _four_bits(recipe, frozen, config)
    weights = frozen + step.trained_bytes
    optimizer = round(step.trained * _OPTIMIZER_BYTES[recipe.optimisation.optimizer])
    gradients = step.trained_bytes
    overhead = 0 if cuda else _CPU_OVERHEAD
    if cuda:
        step_peak = round((weights + optimizer + step.peak) * _CUDA_ALLOCATOR)
    else:
        # The heap keeps what activations held while gradients, larger pieces, find room behind them.
        held = round(step.activations * _HEAP) + max(gradients, step.logits)
        step_peak = weights + optimizer + max(held, step.peak) + overhead
    # Mapped pages of the file count as the process's own until it is closed; a GPU never sees them.
    load_peak = weights + overhead + (0 if cuda else file_bytes)
    saved = step.trained_bytes if recipe.checkpoints.save_steps is not None else 0
    checkpoint_peak = weights + optimizer + (0 if cuda else saved) + overhead
    found = Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=step.activations,
        logits=step.logits,
        load_peak=load_peak,
        step_peak=step_peak,
        checkpoint_peak=checkpoint_peak,
        peak=max(load_peak, step_peak, checkpoint_peak),
    )
    return found, step


def _four_bits(recipe: Recipe, frozen: int, config: Mapping[str, Any]) -> int:
    """Bytes of the base in 4 bits: its linear layers, with a scale for 64 weights; embeddings and norms stay whole."""
    assert recipe.quantization is not None
    element = 4 if recipe.precision == "fp32" else 2
    sides = 1 if config.get("tie_word_embeddings") else 2
    whole = int(config["vocab_size"]) * int(config["hidden_size"]) * element * sides
    bits = 4 + (8 / 64 + 32 / (64 * 256) if recipe.quantization.double else 32 / 64)
    return round(whole + (frozen - whole) / element * bits / 8)
