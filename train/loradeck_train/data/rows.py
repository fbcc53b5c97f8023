"""Rows from a source: JSONL, CSV, Parquet, a folder of splits, the project's own sets, or a `datasets` name."""

import csv
import difflib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loradeck_pocket
from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError

Row = dict[str, Any]

POCKET = {
    "classification": loradeck_pocket.CLASSIFICATION,
    "qa": loradeck_pocket.QUESTION_ANSWERING,
    "arithmetic": loradeck_pocket.ARITHMETIC,
}


def read_rows(source: str, split: str = "train", limit: int | None = None) -> list[Row]:
    """Rows of `source` in order, at most `limit`. Values are as the format has them (CSV: text).

    Raises NotFoundError (no such file, split or set), InvalidError (a malformed file, reason BAD_DATA) or
    PreconditionError (no rows, reason EMPTY_DATA).
    """
    if source.startswith("datasets:"):
        rows = _from_datasets(source.removeprefix("datasets:"), split, limit)
    else:
        path = _file_of(source, split)
        rows = READERS[path.suffix](path)
    if not rows:
        raise PreconditionError(f"the data set {source} has no rows", reason="EMPTY_DATA", field="data.source")
    return rows if limit is None else rows[:limit]


def describe_source(source: str) -> str:
    """`source` without any path of this machine: for records that travel."""
    if source.startswith(("pocket:", "datasets:")):
        return source
    return f"file:{Path(source).name}"


def _file_of(source: str, split: str) -> Path:
    if source.startswith("pocket:"):
        name = source.removeprefix("pocket:")
        if name not in POCKET:
            near = difflib.get_close_matches(name, POCKET, n=1)
            hint = f"did you mean `pocket:{near[0]}`?" if near else f"there are {', '.join(POCKET)}"
            raise NotFoundError(f"no data set `{source}`; {hint}", field="data.source")
        path = POCKET[name]
    else:
        path = Path(source)
    if path.is_dir():
        found = [path / f"{split}{suffix}" for suffix in READERS if (path / f"{split}{suffix}").is_file()]
        if not found:
            there = ", ".join(sorted(p.name for p in path.iterdir() if p.suffix in READERS)) or "no data files"
            raise NotFoundError(f"no split `{split}` in {source}; there: {there}", field="data.split")
        return found[0]
    if not path.is_file():
        raise NotFoundError(f"no data file {source}", field="data.source")
    if path.suffix not in READERS:
        raise InvalidError(
            f"cannot read {path.name}: use one of {', '.join(READERS)}", reason="BAD_DATA", field="data.source"
        )
    return path


def _from_jsonl(path: Path) -> list[Row]:
    rows: list[Row] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise _malformed(path, f"line {number} is not UTF-8; save the file as UTF-8") from error
            except json.JSONDecodeError as error:
                raise _malformed(path, f"line {number} is not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise _malformed(path, f"line {number} is not a JSON object")
            rows.append(row)
    return rows


def _from_csv(path: Path) -> list[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        rows: list[Row] = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise _malformed(path, f"line {reader.line_num} has another number of columns than the header")
                rows.append(dict(row))
        except csv.Error as error:
            raise _malformed(path, f"line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise _malformed(path, f"line {_undecodable_line(path)} is not UTF-8; save the file as UTF-8") from error
    return rows


def _undecodable_line(path: Path) -> int:
    """Number of the first line that is not UTF-8; the decoder reads ahead and does not know it."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _from_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise _malformed(path, f"not a Parquet file ({str(error)[:80]})") from error
    return rows


def _from_datasets(name: str, split: str, limit: int | None) -> list[Row]:
    import datasets

    parts = name.split("/")
    # `org/name/config` or `org/name`; a bare `name` is one of the hub's canonical sets.
    path, config = ("/".join(parts[:2]), parts[2]) if len(parts) == 3 else (name, None)
    try:
        loaded = datasets.load_dataset(path, config, split=split)
    except Exception as error:
        # `datasets` raises a dozen unrelated types here: no network, no such set, no such split, a script refused.
        line = " ".join(str(error).split())[:160]
        raise NotFoundError(f"cannot load `datasets:{name}` split `{split}`: {line}", field="data.source") from error
    count = len(loaded) if limit is None else min(limit, len(loaded))
    return [dict(row) for row in loaded.select(range(count))]


def _malformed(path: Path, what: str) -> InvalidError:
    return InvalidError(f"{path.name}: {what}", reason="BAD_DATA", field="data.source")


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _from_jsonl,
    ".csv": _from_csv,
    ".parquet": _from_parquet,
}
"""File endings that can be read."""
