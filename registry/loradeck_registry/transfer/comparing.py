"""Comparing two revisions: what differs in their manifests, and how far their weights are apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from loradeck_registry.registry import Registry, Revision
from loradeck_registry.servability.adapter import MODEL
from loradeck_registry.transfer.lora_pairs import Pairs, stored_pairs
from loradeck_registry.weights import Weights

_LEFT_OUT = {"files", "create_time", "probe", "format"}


@dataclass(frozen=True)
class ModuleDifference:
    """Frobenius norms of one module's change of weight, B @ A, on each side, and of the difference of both."""

    module: str
    left: float
    right: float
    difference: float

    @property
    def relative(self) -> float:
        """The difference as a share of the larger norm; 0 if both are zero."""
        larger = max(self.left, self.right)
        return self.difference / larger if larger else 0.0


@dataclass(frozen=True)
class Comparison:
    """What differs between two revisions."""

    fields: dict[str, tuple[Any, Any]]
    """Manifest fields by dotted path: left and right value, None where absent. Files and times are left out."""
    files: dict[str, tuple[str | None, str | None]]
    """Files whose content differs: left and right sha256, None where absent."""
    modules: list[ModuleDifference]
    """Of two adapters: every module that either has."""


def compare(registry: Registry, left: Revision, right: Revision) -> Comparison:
    """Compare two revisions, of one name or of two. Reads the weights of adapters. Raises DamagedError."""
    fields = _flat(left.manifest.model_dump(mode="json", exclude=_LEFT_OUT))
    others = _flat(right.manifest.model_dump(mode="json", exclude=_LEFT_OUT))
    paths = [path for path in sorted(fields.keys() | others.keys()) if fields.get(path) != others.get(path)]
    mine, theirs = ({file.path: file.sha256 for file in side.manifest.files} for side in (left, right))
    files = [path for path in sorted(mine.keys() | theirs.keys()) if mine.get(path) != theirs.get(path)]
    modules = []
    if left.manifest.kind == right.manifest.kind == "adapter":
        modules = _modules(_pairs(registry, left), _pairs(registry, right))
    return Comparison(
        {path: (fields.get(path), others.get(path)) for path in paths},
        {path: (mine.get(path), theirs.get(path)) for path in files},
        modules,
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted path; lists are leaves."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _pairs(registry: Registry, revision: Revision) -> Pairs:
    path = registry.local(revision) / MODEL
    if not path.exists():
        return {}
    return stored_pairs(Weights(path))


def _modules(left: Pairs, right: Pairs) -> list[ModuleDifference]:
    found = []
    for module in sorted(left.keys() | right.keys()):
        one, two = left.get(module), right.get(module)
        first = _inner(one, one) if one else 0.0
        second = _inner(two, two) if two else 0.0
        both = _inner(one, two) if one and two else 0.0
        apart = max(first + second - 2 * both, 0.0)
        found.append(ModuleDifference(module, first**0.5, second**0.5, apart**0.5))
    return found


def _inner(one: tuple[Any, Any], two: tuple[Any, Any]) -> float:
    """Inner product of B1 @ A1 and B2 @ A2, without forming either: the sum of (B1^T B2) * (A1 A2^T)."""
    (a1, b1), (a2, b2) = ((a.astype(np.float64), b.astype(np.float64)) for a, b in (one, two))
    return float(np.sum((b1.T @ b2) * (a1 @ a2.T)))
