"""Settings from a YAML file, then LORADECK_SERVE_ environment variables, then the command line."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from loradeck_registry.errors import InvalidError
from loradeck_serve.config.address import as_door
from loradeck_serve.config.server import DOORS, ServerConfig

ENVIRONMENT_PREFIX = "LORADECK_SERVE_"


def load_config(
    path: Path | None, overrides: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> ServerConfig:
    """Merge file, environment and `overrides` (None is ignored). Raises InvalidError, one line."""
    merged: dict[str, Any] = {}
    if path is not None:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidError(f"cannot read the configuration {path}: {error.strerror}", field="config") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidError(f"{path} is not YAML: {' '.join(str(error).split())}", field="config") from None
        if content is not None and not isinstance(content, dict):
            raise InvalidError(f"{path} must hold a map of settings", field="config")
        merged = content or {}
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise InvalidError(f"the environment variable {name} is not YAML: {text!r}", field="config") from None
            _set(merged, name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"), value)
    for name, value in overrides.items():
        if value is not None:
            _set(merged, name.split("."), value)
    if merged.get("base") is None:
        raise InvalidError("server configuration: `base` is required (--base)", reason="BAD_CONFIG", field="config")
    try:
        return ServerConfig.model_validate(merged)
    except ValidationError as error:
        raise InvalidError(
            one_line(error, "server configuration", ServerConfig), reason="BAD_CONFIG", field="config"
        ) from None


def _set(target: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = target.setdefault(part, {})
        if path[0] in DOORS:
            try:
                inner = target[part] = as_door(inner)
            except ValueError:
                raise InvalidError(
                    f"server configuration: {part}: bad address {inner!r}: use host:port",
                    reason="BAD_CONFIG",
                    field="config",
                ) from None
        if not isinstance(inner, dict):
            inner = target[part] = {}
        target = inner
    target[path[-1]] = value


def one_line(error: ValidationError, what: str, model: type[BaseModel]) -> str:
    """What is wrong with `what`, read as a `model`, with the nearest right name for a wrong one."""
    parts = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), _keys(model, item["loc"][:-1]), n=1)
            parts.append(f"unknown key `{where}`" + (f" (did you mean `{near[0]}`?)" if near else ""))
        elif item["type"] == "missing":
            parts.append(f"`{where}` is required")
        else:
            parts.append(f"{where + ': ' if where else ''}{item['msg'].removeprefix('Value error, ')}")
    return f"{what}: " + "; ".join(parts)


def _keys(model: Any, path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        fields = getattr(model, "model_fields", {})
        # What is no field is a key of a map: {name: model}.
        model = fields[part].annotation if part in fields else (get_args(model) or (None,))[-1]
        model = next((kind for kind in get_args(model) if hasattr(kind, "model_fields")), model)
    return list(getattr(model, "model_fields", {}))
