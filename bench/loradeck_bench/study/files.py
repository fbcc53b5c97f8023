"""Study files: shipped names and paths, the two scales, and errors that name the key at fault."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from loradeck_bench.study.format.study import Study
from loradeck_registry.errors import InvalidError, NotFoundError

SHIPPED = Path(__file__).parents[1] / "studies"
"""Folder of the studies that come with the package."""
Scale = Literal["pocket", "full"]
SCALES: tuple[Scale, ...] = ("pocket", "full")


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_study(text: str) -> Path:
    """The file of a study: a path, or the name of a shipped one. Raises NotFoundError, which names the shipped ones."""
    path = Path(text)
    if path.is_file():
        return path
    if text in shipped_studies():
        return SHIPPED / f"{text}.yaml"
    raise NotFoundError(f"no study {text!r}: neither a file nor one of {', '.join(shipped_studies())}")


def load_study(path: Path, scale: Scale) -> Study:
    """The study in `path` at `scale`: what stands under `scales.<scale>` is laid over the rest of the file, map by map;
    null takes a key away. Raises InvalidError (BAD_STUDY)."""
    tree = _read(path)
    scales = tree.pop("scales", {})
    if not isinstance(scales, dict) or not scales or set(scales) - set(SCALES):
        raise InvalidError(
            f"study {path.name}: `scales` must be a map of {' and '.join(SCALES)}", reason="BAD_STUDY", field="scales"
        )
    if scale not in scales:
        raise InvalidError(f"study {path.stem} has no scale {scale}", reason="BAD_STUDY", field="scale")
    return _parse(merged(tree, scales[scale] or {}), f"study {path.stem} ({scale})")


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`, map by map; a null takes the key away, except in maps of settings, where null is a value."""
    result = dict(low)
    for key, value in high.items():
        if key == "set" and isinstance(value, Mapping):
            result[key] = {**result.get(key, {}), **value}
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice in a map is an error, not the last one's silent victory."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.composer.ComposerError(None, None, f"key {key!r} stands twice", node.start_mark)
        return node


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise InvalidError(f"cannot read {path}: {line[:200]}", reason="BAD_STUDY") from error
    if not isinstance(tree, dict):
        raise InvalidError(f"{path.name} is not a map of keys", reason="BAD_STUDY")
    return tree


def _parse(tree: Mapping[str, Any], name: str) -> Study:
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
        place = ".".join(str(part) for part in first["loc"])
        message = "unknown key" if first["type"] == "extra_forbidden" else str(first["msg"])
        message = message.removeprefix("Value error, ")
        raise InvalidError(
            f"{name}: `{place}`: {message}" if place else f"{name}: {message}", reason="BAD_STUDY", field=place
        ) from error
