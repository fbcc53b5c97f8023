"""What a step is made from: data files, settings with their placeholders filled in, and digests of all of it."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import loradeck_pocket
from loradeck_bench.study.format.work import DataSet, Source
from loradeck_registry.errors import InvalidError

_POCKET_DATA = Path(loradeck_pocket.__file__).parent / "data"
FILES = ("train", "validation", "test", "database")
"""What a source of a data set may name, and what `${NAME.…}` means in settings and commands."""
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")


def choose_source(data: DataSet, folder: Path) -> Source | None:
    """The first source of a data set whose files are there, with whole paths; None if there is none."""
    for source in data.sources:
        files = {name: getattr(source, name) for name in FILES}
        located = {name: _locate(text, folder) for name, text in files.items() if text is not None}
        if all(located.values()):
            return source.model_copy(update=located)
    return None


def _locate(text: str, folder: Path) -> str | None:
    """The text of a source with a whole path in it; None if its file is not there."""
    kind, separator, rest = text.partition(":")
    if kind == "pocket":
        path = _POCKET_DATA / rest
        return str(path) if path.is_file() else text if path.is_dir() else None
    if kind == "datasets":
        return text
    if kind == "text2sql" and separator:
        path = folder / rest
        return f"text2sql:{path.absolute()}" if path.is_file() else None
    path = folder / text
    return str(path.absolute()) if path.exists() else None


def training_file(source: Source) -> Path | None:
    """The file of a source's training rows, None if they are in none."""
    text = source.train or ""
    kind, _, rest = text.partition(":")
    if kind == "pocket":
        found = sorted((_POCKET_DATA / rest).glob("train.*"))
        return found[0] if found else None
    path = Path(text)
    return path if path.is_file() else None


def fill(value: Any, names: Mapping[str, str]) -> Any:
    """`value` with every `${name}` in its texts replaced. Raises InvalidError for a name that there is not."""
    if isinstance(value, str):
        for name in _PLACEHOLDER.findall(value):
            if name not in names:
                raise InvalidError(
                    f"`${{{name}}}` means nothing here; there are {', '.join(names) or 'no names'}", reason="BAD_STUDY"
                )
        return _PLACEHOLDER.sub(lambda match: names[match[1]], value)
    if isinstance(value, Mapping):
        return {key: fill(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [fill(inner, names) for inner in value]
    return value


def placeholders(value: Any) -> list[str]:
    """The names in all `${name}` of a setting's texts."""
    return _PLACEHOLDER.findall(json.dumps(value, ensure_ascii=False))


def as_sets(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the values of `--set`."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def digest_of(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of inputs, in which names of files and of the project's own sets count by their content."""
    text = json.dumps(by_content(inputs), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def by_content(value: Any) -> Any:
    """`value` with every text that names a file, a folder or a `pocket:` set replaced by a digest of what it holds."""
    if isinstance(value, Mapping):
        return {key: by_content(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [by_content(inner) for inner in value]
    if isinstance(value, str):
        kind, _, rest = value.partition(":")
        if value == "pocket:base":
            return f"{value}={_content(loradeck_pocket.BASE)}"
        if kind == "pocket":
            return f"{value}={_content(_POCKET_DATA / rest)}"
        path = Path(rest if kind in ("dir", "text2sql") else value)
        if path.is_absolute() and path.exists():
            return f"{kind if rest else ''}={_content(path)}"
    return value


@cache
def _content(path: Path) -> str:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return _digest_text("".join(f"{file.relative_to(path)}={_content(file)}\n" for file in files))
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
