"""What an adapter changes, in plain matrices: every method's layers as LoRA pairs whose product is the change."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from loradeck_registry.errors import PreconditionError
from loradeck_train.model.adapters import lora_layers
from loradeck_train.model.build import TrainingModel
from loradeck_train.publish.low_rank import truncated
from loradeck_train.recipe.lora import LoraSettings

Pair = tuple[Tensor, Tensor]


@dataclass
class Changes:
    """float32, on the CPU. A pair is (A [rank, inputs], B [outputs, rank]); the change of the weight is B A."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    """By linear module of the layers."""
    embedding: Pair | None = None
    """Of the whole embedding, a matrix [rows, hidden]: A [rank, hidden], B [rows, rank]."""
    head: Pair | None = None
    """Of the whole head, of the same shape. None: it stays as it is, or on a tied base follows the embedding."""
    whole: dict[str, Tensor] = field(default_factory=dict)
    """DoRA's exact change, which `pairs` holds only nearly."""
    fidelity: dict[str, float] | None = None
    """For DoRA: how much of the change its pairs keep."""


def changes_of(trained: TrainingModel, settings: LoraSettings) -> Changes:
    """What training changed, all scales folded into B.

    rsLoRA and patterns are scales and ranks; PiSSA's start is subtracted, at twice the rank; DoRA's change is cut to
    `published_rank` by SVD. Raises PreconditionError (UNTRAINED) if nothing has moved.
    """
    found = Changes()
    energy = kept = 0.0
    lowest = 1.0
    moved = False
    for name, layer in lora_layers(trained.model).items():
        if layer.lora_embedding_A:
            found.embedding = _embedding_pair(layer)
            moved = moved or bool(found.embedding[1].any())
            continue
        a = layer.lora_A["default"].weight.detach().float().cpu()
        b = layer.lora_B["default"].weight.detach().float().cpu() * float(layer.scaling["default"])
        if layer is trained.causal.get_output_embeddings():
            found.head = (a, b)
            moved = moved or bool(b.any())
            continue
        if layer.use_dora.get("default"):
            change = _dora_change(layer, a, b)
            cut = truncated(change, settings.published_rank)
            found.whole[name], found.pairs[name] = change, (cut.a, cut.b)
            energy, kept = energy + cut.energy, kept + cut.kept
            lowest = min(lowest, cut.share)
            moved = moved or cut.energy > 0
            continue
        if name in trained.start:
            # The base lost B0 A0 at the start, so B A - B0 A0 is the change of the base that will be served.
            first_a, first_b = trained.start[name]
            moved = moved or not torch.equal(b, first_b)
            a, b = torch.cat([a, first_a]), torch.cat([b, -first_b], dim=1)
        else:
            moved = moved or bool(b.any())
        found.pairs[name] = (a, b)
    if not moved:
        raise PreconditionError("training has not moved the adapter: every B is as it started", reason="UNTRAINED")
    if found.whole:
        found.fidelity = {
            "rank": float(settings.published_rank),
            "energy": kept / energy if energy else 1.0,
            "lowest_energy": lowest,
            "relative_error": max(0.0, 1 - kept / energy) ** 0.5 if energy else 0.0,
        }
    return found


def padded(pairs: dict[str, Pair]) -> tuple[dict[str, Pair], int]:
    """The pairs at one rank, the largest, filled with zeros: engines know one rank per adapter."""
    rank = max((a.shape[0] for a, _ in pairs.values()), default=0)
    same = {}
    for name, (a, b) in pairs.items():
        more = rank - a.shape[0]
        same[name] = (torch.cat([a, a.new_zeros(more, a.shape[1])]), torch.cat([b, b.new_zeros(b.shape[0], more)], 1))
    return same, rank


def _embedding_pair(layer: Any) -> Pair:
    # PEFT's A is [rank, rows] and its B [hidden, rank]; the change of the matrix [rows, hidden] is B A transposed.
    a, b = layer.lora_embedding_A["default"], layer.lora_embedding_B["default"]
    return b.detach().float().cpu().t(), a.detach().float().cpu().t() * float(layer.scaling["default"])


def _dora_change(layer: Any, a: Tensor, b: Tensor) -> Tensor:
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(layer.get_base_layer()).detach().float().cpu()
    magnitude = layer.lora_magnitude_vector["default"].weight.detach().float().cpu()
    direction = weight + b @ a
    return direction * (magnitude / direction.norm(dim=1))[:, None] - weight
