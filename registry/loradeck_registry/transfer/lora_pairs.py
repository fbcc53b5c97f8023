"""The A and B matrices of an adapter, read from PEFT's files, and the exact algebra on them, in float32."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loradeck_registry.bases.shapes import BaseShapes
from loradeck_registry.errors import PreconditionError
from loradeck_registry.servability.adapter import DTYPES
from loradeck_registry.weights import Weights

_TENSOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_EMBEDDING = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_embedding_(?P<side>[AB])(?:\.default)?")
Matrix = NDArray[np.float32]
Pairs = dict[str, tuple[Matrix, Matrix]]
"""By module: A [rank, inputs] and B [outputs, rank], so that the change of the weight is B @ A.

Of the embedding too, whose weight is [rows, hidden]: PEFT's `lora_embedding_B` transposed is its A, and
`lora_embedding_A` transposed its B.
"""


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
        embedding = _EMBEDDING.fullmatch(name)
        match = embedding or _TENSOR.fullmatch(name)
        if match is None:
            if "lora_" in name:
                raise refuse("LEFTOVER_TENSOR", f"tensor {name} is not the A or B of a module")
            others.append(name)
            continue
        module, side = match["module"], match["side"]
        if module not in ([base.embedding] if embedding else [*base.modules, base.head]):
            raise refuse("NAME_MISMATCH", f"tensor {name} matches no module of the base")
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
    shapes = base.modules | {name: (base.rows, base.hidden) for name in base.whole if name in pairs}
    for module, (outputs, inputs) in shapes.items():
        if module.rpartition(".")[2] not in leaves:
            continue
        if module not in pairs:
            filled.append(module)
        a = np.zeros((rank, inputs), np.float32)
        b = np.zeros((outputs, rank), np.float32)
        if module in pairs:
            own_a, own_b = pairs[module]
            a[: len(own_a)], b[: len(own_b), : len(own_a)] = own_a, own_b
        complete[module] = (a, b)
    padded = any(a.shape[0] != rank for a, _ in pairs.values())
    return complete, filled, padded


def tied_together(pairs: Pairs, base: BaseShapes) -> Pairs:
    """The pairs of an adapter whose head follows its embedding on a tied base, which PEFT stores once."""
    if base.tied and base.embedding in pairs:
        return {**pairs, base.head: pairs[base.embedding]}
    return pairs


def stored(pairs: Pairs, base: BaseShapes) -> dict[str, Matrix]:
    """The pairs as tensors under PEFT's names."""
    tensors: dict[str, Matrix] = {}
    for module, (a, b) in pairs.items():
        if module == base.embedding:
            sides = {"lora_embedding_A": b.T, "lora_embedding_B": a.T}
        else:
            sides = {"lora_A.weight": a, "lora_B.weight": b}
        tensors |= {f"base_model.model.{module}.{side}": matrix for side, matrix in sides.items()}
    return tensors


def stored_pairs(weights: Weights) -> Pairs:
    """The pairs of an adapter in the published format, whose completeness was checked when it was published."""
    sides: dict[str, dict[str, Matrix]] = {}
    for name in weights.tensors:
        if embedding := _EMBEDDING.fullmatch(name):
            side = "B" if embedding["side"] == "A" else "A"
            sides.setdefault(embedding["module"], {})[side] = weights.float32(name).T
        elif match := _TENSOR.fullmatch(name):
            sides.setdefault(match["module"], {})[match["side"]] = weights.float32(name)
    return {module: (pair["A"], pair["B"]) for module, pair in sides.items()}


def _pair(weights: Weights, module: str, sides: dict[str, str], base: BaseShapes) -> tuple[Matrix, Matrix]:
    for side in "AB":
        if side not in sides:
            raise refuse("MISSING_TENSOR", f"lora_{side} of {module} is missing")
    a, b = weights.float32(sides["A"]), weights.float32(sides["B"])
    if a.ndim == b.ndim == 2 and module == base.embedding:
        a, b = b.T, a.T
    whole = module in base.whole
    outputs, inputs = (base.rows, base.hidden) if whole else base.modules[module]
    if a.ndim != 2 or b.ndim != 2 or a.shape != (b.shape[1], inputs) or not (b.shape[0] == outputs or whole):
        raise refuse(
            "SHAPE_MISMATCH",
            f"A {list(a.shape)} and B {list(b.shape)} of {module} do not fit its weight {[outputs, inputs]}",
        )
    if not base.vocabulary <= b.shape[0] <= base.rows and whole:
        raise refuse(
            "SHAPE_MISMATCH",
            f"LoRA on {module} covers {b.shape[0]} rows, the base has {base.vocabulary} to {base.rows}: import it for "
            "a base with as many (`registry add-base --reserve-tokens`)",
        )
    return a, b


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the module's name."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
