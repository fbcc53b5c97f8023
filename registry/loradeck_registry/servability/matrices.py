"""The A and B of an adapter's file against the base: names, shapes, completeness, precision, finiteness.

A linear module of the layers has `lora_A` [rank, inputs] and `lora_B` [outputs, rank], and so has the head, whose
outputs are the base's rows. The embedding's pair is PEFT's: `lora_embedding_A` [rank, rows] and `lora_embedding_B`
[hidden, rank]. On a tied base each side has, or lacks, a pair of its own, as in PEFT.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.bases.shapes import BaseShapes
from loradeck_registry.errors import PreconditionError
from loradeck_registry.weights import Weights, check_no_empty_tensor

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.(?P<side>lora_[AB])\.weight")
_EMBEDDING = re.compile(r"base_model\.model\.(?P<module>.+)\.(?P<side>lora_embedding_[AB])")
_LORA_END = re.compile(r"\.lora_(embedding_)?[AB](\.[^.]+)?(\.weight)?$")


@dataclass(frozen=True)
class Rows:
    """How many rows LoRA on embedding or head may cover: at least all that the adapter can use, at most the base's."""

    least: int
    most: int

    def __contains__(self, count: int) -> bool:
        return self.least <= count <= self.most

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least} to {self.most}"


Wanted = tuple[int | Rows, ...]


def refuse(reason: str, message: str, **metadata: str) -> PreconditionError:
    """The error for an adapter that cannot be served."""
    return PreconditionError(f"the adapter cannot be served: {message}", reason=reason, metadata=metadata)


def check_matrices(path: Path, rank: int, targets: Iterable[str], base: BaseShapes, added: Iterable[int]) -> Weights:
    """Check the file of an adapter of `rank` on the modules with the leaf names `targets`, with the new tokens `added`.

    Raises PreconditionError (LEFTOVER_TENSOR, MISSING_TENSOR, NAME_MISMATCH, SHAPE_MISMATCH, DTYPE, NOT_FINITE), and
    InvalidError of a file that is none.
    """
    weights = Weights(path)
    check_no_empty_tensor(weights)
    check_dtype(weights, list(weights.tensors))
    wanted = _wanted(rank, set(targets), base, max([base.vocabulary, *(token + 1 for token in added)]))
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in weights.tensors.items():
        match = _TENSOR.fullmatch(name) or _EMBEDDING.fullmatch(name)
        if match is None or match["module"] not in (*base.modules, *base.whole):
            known = match is not None or _LORA_END.search(name) is not None
            why = "matches no module of the base" if known else "is not the A or B of a module"
            raise refuse("NAME_MISMATCH" if known else "LEFTOVER_TENSOR", f"tensor {name} {why}", tensor=name)
        sides = wanted.get(match["module"])
        if sides is None:
            raise refuse("LEFTOVER_TENSOR", f"tensor {name} is of no module in `target_modules`", tensor=name)
        if match["side"] not in sides:
            raise refuse("NAME_MISMATCH", f"tensor {name} is none of {match['module']}'s {', '.join(sides)}")
        found.setdefault(match["module"], {})[match["side"]] = tensor.shape
    for module, sides in wanted.items():
        for side, shape in sides.items():
            have = found.get(module, {}).get(side)
            if have is None:
                raise refuse("MISSING_TENSOR", f"{side} of {module} is missing", module=module)
            if not _fits(have, shape):
                raise refuse(
                    "SHAPE_MISMATCH",
                    f"{side} of {module} has shape {list(have)}, the base needs [{', '.join(map(str, shape))}]",
                    module=module,
                )
    rows = {_rows_of(module, found[module], base) for module in base.whole if module in found}
    if len(rows) > 1:
        raise refuse("SHAPE_MISMATCH", f"LoRA on embedding and head covers {sorted(rows)} rows: it must be one number")
    check_finite(weights, list(weights.tensors))
    return weights


def check_dtype(weights: Weights, names: list[str]) -> None:
    """Raise PreconditionError (DTYPE) unless all the tensors are of one floating-point type that can be served."""
    kinds = {weights.tensors[name].dtype for name in names}
    if not kinds <= set(DTYPES) or len(kinds) > 1:
        raise refuse(
            "DTYPE", f"{weights.path.name} holds {', '.join(sorted(kinds))}: use one of F32, BF16, F16 throughout"
        )


def check_finite(weights: Weights, names: list[str]) -> None:
    """Raise PreconditionError (NOT_FINITE) if one of the tensors holds NaN or infinity."""
    for name in names:
        if not weights.finite(name):
            raise refuse("NOT_FINITE", f"tensor {name} holds NaN or infinity", tensor=name)


def _wanted(rank: int, targets: set[str], base: BaseShapes, used_rows: int) -> dict[str, dict[str, Wanted]]:
    """Shapes by module and side."""
    wanted: dict[str, dict[str, Wanted]] = {
        name: {"lora_A": (rank, inputs), "lora_B": (outputs, rank)}
        for name, (outputs, inputs) in base.modules.items()
        if name.rpartition(".")[2] in targets
    }
    rows = Rows(used_rows, base.rows)
    if base.embedding.rpartition(".")[2] in targets:
        wanted[base.embedding] = {"lora_embedding_A": (rank, rows), "lora_embedding_B": (base.hidden, rank)}
    if base.head.rpartition(".")[2] in targets:
        wanted[base.head] = {"lora_A": (rank, base.hidden), "lora_B": (rows, rank)}
    return wanted


def _fits(shape: tuple[int, ...], wanted: Wanted) -> bool:
    return len(shape) == len(wanted) and all(
        have in want if isinstance(want, Rows) else have == want for have, want in zip(shape, wanted, strict=True)
    )


def _rows_of(module: str, sides: dict[str, tuple[int, ...]], base: BaseShapes) -> int:
    return sides["lora_embedding_A"][1] if module == base.embedding else sides["lora_B"][0]
