"""Recipe files: shipped names and paths, `extends`, overrides, and errors that name the key at fault."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_train.recipe.settings import Recipe

SHIPPED = Path(__file__).parents[1] / "recipes"
"""Folder of the recipes that come with the package."""
ENVIRONMENT_PREFIX = "LORADECK_RECIPE__"
"""`LORADECK_RECIPE__OPTIMISATION__LEARNING_RATE=1e-4` sets `optimisation.learning_rate`."""


class _Loader(yaml.SafeLoader):
    """YAML in which `1e-4` is a number (YAML 1.2), as everybody expects of a learning rate."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package, such as `pocket/clf-lora`."""
    return sorted(p.relative_to(SHIPPED).with_suffix("").as_posix() for p in SHIPPED.glob("**/*.yaml"))


def load_recipe(text: str, overrides: Mapping[str, Any] | None = None, sets: Sequence[str] = ()) -> Recipe:
    """Read the recipe `text` (a path or a shipped name).

    Strength, weakest first: `extends`, the file, `LORADECK_RECIPE__...` variables, `sets` (`key=value`, dotted keys,
    YAML values), `overrides` (dotted keys). Raises NotFoundError or InvalidError (reason
    BAD_RECIPE).
    """
    path = find_recipe(text)
    tree = _read(path, ())
    for name, value in os.environ.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            _assign(tree, name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), _value(value), name)
    for item in sets:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise InvalidError(f"bad --set {item!r}: use key=value, for example optimisation.epochs=2", field="set")
        _assign(tree, key.strip(), _value(value), "--set")
    for key, content in (overrides or {}).items():
        _assign(tree, key, content, key)
    return parse_recipe(tree, str(text))


def parse_recipe(tree: Mapping[str, Any], name: str = "recipe") -> Recipe:
    """Validate a recipe given as nested mappings. Raises InvalidError (reason BAD_RECIPE)."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        # A misspelt key is also a missing one: the key that is there says more than the one that is not.
        found = error.errors()
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
        place = [part for part in first["loc"] if isinstance(part, str | int)]
        raise InvalidError(
            f"recipe {name}: {_explain(place, first)}", reason="BAD_RECIPE", field=_dotted(place) or "recipe"
        ) from error


def find_recipe(text: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises NotFoundError with the nearest names."""
    path = Path(text)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{text.removesuffix('.yaml')}.yaml"
    if shipped.is_file() and shipped.resolve().is_relative_to(SHIPPED.resolve()):
        return shipped
    if path.is_dir():
        raise NotFoundError(f"{text} is a folder: name a recipe's file in it")
    near = difflib.get_close_matches(text, shipped_recipes(), n=3, cutoff=0.4)
    hint = f"near it: {', '.join(near)}" if near else "`loradeck train recipes` lists the shipped ones"
    raise NotFoundError(f"no recipe {text!r}: neither a file nor a shipped recipe; {hint}")


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise InvalidError(f"recipe {path.name}: `extends` goes in a circle", reason="BAD_RECIPE", field="extends")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise InvalidError(f"cannot read recipe {path}: {line[:200]}", reason="BAD_RECIPE") from error
    if not isinstance(tree, dict):
        raise InvalidError(f"recipe {path.name} is not a map of keys", reason="BAD_RECIPE")
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    beside = path.parent / str(parent)
    return _merge(_read(beside if beside.is_file() else find_recipe(str(parent)), (*above, path.resolve())), tree)


def _merge(low: dict[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`, map by map; a null takes the key away, so that a child can undo what its parent set."""
    merged = dict(low)
    for key, value in high.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _assign(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, last = key.split(".")
    for part in parents:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise InvalidError(f"{where}: `{key}` goes through `{part}`, which is not a map", field=key)
        tree = below
    if value is None:
        tree.pop(last, None)
    else:
        tree[last] = value


def _value(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text


def _explain(place: Sequence[str | int], error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        known = _keys_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
        return f"unknown key `{_dotted(place)}`; {hint}"
    if error["type"] == "missing":
        return f"`{_dotted(place)}` is missing"
    if error["type"] == "model_type":
        return f"`{_dotted(place)}` must be a map of keys: {', '.join(_keys_at(place))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"`{_dotted(place)}`: {message}" if place else message


def _dotted(place: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in place if not str(part).startswith(("constrained-", "tuple[", "literal[")))


def _keys_at(place: Sequence[str | int]) -> list[str]:
    """Field names of the model at `place` in a recipe."""
    model: type[BaseModel] = Recipe
    for part in place:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return list(model.model_fields)
