"""What a recipe may one day say and cannot yet: refused by name, never ignored."""

from collections.abc import Mapping
from typing import Any

from loradeck_registry.errors import UnimplementedError

_FIELDS = {
    "distributed": "several devices",
}
_VALUES = {}


def refuse_unbuilt(tree: Mapping[str, Any]) -> None:
    """Raise UnimplementedError if the recipe `tree` asks for something known that is not built."""
    for key, value in _leaves(tree):
        for field, what in _FIELDS.items():
            if key == field or key.startswith(f"{field}."):
                raise UnimplementedError(f"recipe key `{field}` ({what}) is not implemented yet", field=field)
        if isinstance(value, str) and value in _VALUES.get(key, ()):
            raise UnimplementedError(f"recipe value `{key}: {value}` is not implemented yet", field=key)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        found.append((path, value))
        if isinstance(value, Mapping):
            found.extend(_leaves(value, f"{path}."))
    return found
