"""The A and B matrices of an adapter, read from PEFT's files, and the exact algebra on them, in float32."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loradeck_registry.errors import PreconditionError
from loradeck_registry.servable import DTYPES
from loradeck_registry.shapes import BaseShapes
from loradeck_registry.weights import Weights

_TENSOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
Matrix = NDArray[np.float32]
Pairs = dict[str, tuple[Matrix, Matrix]]
"""By module: A [rank, inputs] and B [outputs, rank], so that the change of the weight is B @ A."""


def refuse(reason: str, message: str) -> PreconditionError:
    """The error for an adapter that has no exact form that can be served."""
    return PreconditionError(f"the adapter cannot be converted exactly: {message}", reason=reason)


def read_pairs(weights: Weights, base: BaseShapes) -> tuple[Pairs, list[str]]:
    """The pairs as stored, checked against the base, and the names of all tensors that are no LoRA.

    Raises PreconditionError (NAME_MISMATCH, LEFTOVER_TENSOR, MISSING_TENSOR, SHAPE_MISMATCH, DTYPE, NOT_FINITE).
    """
    names: dict[str, dict[str, str]] = {}
    others = []
    for name, tensor in weights.tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            if "lora_" in name:
                raise refuse("LEFTOVER_TENSOR", f"tensor {name} is not the A or B of a linear module")
            others.append(name)
            continue
        module, side = match["module"], match["side"]
        if module not in base.modules:
            raise refuse("NAME_MISMATCH", f"tensor {name} matches no linear module in the base's layers")
        if side in names.setdefault(module, {}):
            raise refuse("LEFTOVER_TENSOR", f"lora_{side} of {module} is there twice")
        if tensor.dtype not in DTYPES:
            raise refuse("DTYPE", f"tensor {name} is of type {tensor.dtype}")
        if not weights.finite(name):
            raise refuse("NOT_FINITE", f"tensor {name} holds NaN or infinity")
        names[module][side] = name
    return {module: _pair(weights, module, sides, base) for module, sides in names.items()}, others


def scale_of(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """PEFT's scale of one module: alpha / r, or alpha / sqrt(r) for rsLoRA, patterns applied.

    Raises PreconditionError (SHAPE_MISMATCH) if the configuration states another rank.
    """
    stated = int(_by_pattern(config.get("rank_pattern") or {}, module, config.get("r", 8)))
    if stated != rank:
        raise refuse("SHAPE_MISMATCH", f"{module} has rank {rank}, but its configuration says {stated}")
    alpha = float(_by_pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha", 8)))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def folded(pairs: Pairs, config: Mapping[str, Any]) -> Pairs:
    """The pairs with every module's scale in its B, so that alpha is the rank."""
    return {module: (a, b * np.float32(scale_of(module, a.shape[0], config))) for module, (a, b) in pairs.items()}


def subtracted(pairs: Pairs, start: Pairs) -> Pairs:
    """Pairs whose product is that of `pairs` less that of `start`, at the sum of both ranks.

    A PiSSA-like start takes B0 @ A0 out of the base's weight, so B @ A - B0 @ A0 is the change of the original weight.
    """
    if set(pairs) != set(start):
        raise refuse("MISSING_TENSOR", "the initial weights are of other modules than the adapter")
    return {
        module: (
            np.concatenate([a, start[module][0]]),
            np.concatenate([b, -start[module][1]], axis=1),
        )
        for module, (a, b) in pairs.items()
    }


def completed(pairs: Pairs, base: BaseShapes) -> tuple[Pairs, list[str], bool]:
    """Pairs of one rank for every layer's module whose leaf name occurs; what was absent is zero.

    Returns the pairs, the modules that were filled, and whether any rank was padded.
    """
    rank = max((a.shape[0] for a, _ in pairs.values()), default=0)
    leaves = {module.rpartition(".")[2] for module in pairs}
    complete: Pairs = {}
    filled = []
    for module, (outputs, inputs) in base.modules.items():
        if module.rpartition(".")[2] not in leaves:
            continue
        if module not in pairs:
            filled.append(module)
        a = np.zeros((rank, inputs), np.float32)
        b = np.zeros((outputs, rank), np.float32)
        if module in pairs:
            own = pairs[module][0].shape[0]
            a[:own], b[:, :own] = pairs[module]
        complete[module] = (a, b)
    padded = any(a.shape[0] != rank for a, _ in pairs.values())
    return complete, filled, padded


def _pair(weights: Weights, module: str, sides: dict[str, str], base: BaseShapes) -> tuple[Matrix, Matrix]:
    for side in "AB":
        if side not in sides:
            raise refuse("MISSING_TENSOR", f"lora_{side} of {module} is missing")
    a, b = weights.float32(sides["A"]), weights.float32(sides["B"])
    outputs, inputs = base.modules[module]
    if a.ndim != 2 or b.ndim != 2 or a.shape != (b.shape[1], inputs) or b.shape[0] != outputs:
        raise refuse(
            "SHAPE_MISMATCH",
            f"A {list(a.shape)} and B {list(b.shape)} of {module} do not fit its weight {[outputs, inputs]}",
        )
    return a, b


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
