"""Rows of a data set: JSONL, CSV or Parquet files, or the project's own sets; checked columns, stratified samples."""

import csv
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import loradeck_pocket
from loradeck_bench.columns import Column
from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError

Row = dict[str, str]

COLUMNS: dict[str, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "short_qa": ("context", "question", "short_answer"),
    "long_qa": ("context", "question", "long_answer"),
}
"""Columns that each task needs; the last one is the reference."""

TASKS = tuple(COLUMNS)
"""Tasks that can be evaluated and loaded."""

DEFAULT_DATA = {"classification": "pocket:classification", "short_qa": "pocket:qa", "long_qa": "pocket:qa"}
"""Data of each task where none is named: the project's own test sets."""

_POCKET = {
    "pocket:classification": loradeck_pocket.CLASSIFICATION,
    "pocket:qa": loradeck_pocket.QUESTION_ANSWERING,
}


def read_rows(source: str, task: str, *, split: str = "test", columns: Mapping[str, Column] | None = None) -> list[Row]:
    """Rows of `source` with the columns of `task` as text.

    `source` is `pocket:classification`, `pocket:qa`, a .jsonl, .csv or .parquet file, or a folder with one named after
    `split`. `columns` says where a column comes from if not from the one of its name. Raises NotFoundError, or
    InvalidError for a missing column (named, with the row) or an empty set.
    """
    path = _find(source, split)
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise InvalidError(f"cannot read {path.name}: use .jsonl, .csv or .parquet", reason="BAD_FORMAT", field="data")
    wanted = {name: (columns or {}).get(name, Column(name)) for name in COLUMNS[task]}
    rows: list[Row] = []
    for number, raw in enumerate(readers[path.suffix](path), start=1):
        rows.append(_check(raw, wanted, f"{path.name} row {number}", task))
    if not rows:
        raise InvalidError(f"no rows in {path}", reason="EMPTY_DATA", field="data")
    return rows


def sample(rows: Sequence[Row], limit: int | None, *, by: str | None = None, seed: int = 0) -> list[Row]:
    """At most `limit` rows, the same ones for the same seed, in their first order; with `by`, every value of that
    column keeps its share as nearly as whole rows allow. Raises InvalidError unless limit is 1 or more."""
    if limit is None or limit >= len(rows):
        return list(rows)
    if limit < 1:
        raise InvalidError("the limit must be 1 row or more", reason="BAD_LIMIT", field="limit")
    groups: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        groups[row[by] if by else ""].append(position)
    rng = random.Random(seed)
    ranked: list[tuple[float, float, int]] = []
    for key in sorted(groups):
        positions = groups[key]
        rng.shuffle(positions)
        # A row's rank inside its group, as a share of the group: cutting at any length keeps the shares.
        ranked += [((rank + 0.5) / len(positions), rng.random(), p) for rank, p in enumerate(positions)]
    return [rows[position] for _, _, position in sorted(sorted(ranked)[:limit], key=lambda entry: entry[2])]


def _find(source: str, split: str) -> Path:
    if source.startswith("pocket:"):
        if source not in _POCKET:
            raise NotFoundError(f"no data set {source!r}: there are {', '.join(sorted(_POCKET))}", field="data")
        return _POCKET[source] / f"{split}.jsonl"
    path = Path(source)
    if path.is_dir():
        found = [path / f"{split}{suffix}" for suffix in (".jsonl", ".csv", ".parquet")]
        existing = [candidate for candidate in found if candidate.is_file()]
        if not existing:
            raise NotFoundError(f"no {split}.jsonl, {split}.csv or {split}.parquet in {source}", field="data")
        return existing[0]
    if not path.is_file():
        raise NotFoundError(f"no data at {source}: give a file, a folder or one of {', '.join(_POCKET)}", field="data")
    return path


def _check(raw: Any, wanted: Mapping[str, Column], where: str, task: str) -> Row:
    if not isinstance(raw, dict):
        raise InvalidError(f"{where}: not an object with columns", reason="BAD_ROW", field="data")
    row = {name: column.of(raw, where) for name, column in wanted.items()}
    missing = [name for name, value in row.items() if value is None]
    if missing:
        raise InvalidError(
            f"{where}: column {wanted[missing[0]].name!r} is missing; {task} needs {', '.join(wanted)}, "
            f"the row has {', '.join(map(str, raw)) or 'none'}",
            reason="MISSING_COLUMN",
            field=missing[0],
        )
    for name, value in row.items():
        # A question may come without a context, but not without its question or its reference.
        empty = name != "context" and not str(value).strip()
        if empty or isinstance(value, dict | list | bytes):
            what = "is empty" if empty else f"holds a {type(value).__name__}, not text"
            raise InvalidError(f"{where}: column {wanted[name].name!r} {what}", reason="BAD_ROW", field=name)
    return {name: str(value) for name, value in row.items()}


def _read_jsonl(path: Path) -> Iterable[Any]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError:
                    raise _not_utf8(path, number) from None
                except ValueError as error:
                    raise InvalidError(f"{path.name} line {number}: {error}", reason="BAD_ROW", field="data") from None


def _read_csv(path: Path) -> Iterable[Any]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise InvalidError(
                        f"{path.name} line {reader.line_num}: another number of columns than the header",
                        reason="BAD_ROW",
                        field="data",
                    )
                yield row
        except csv.Error as error:
            raise InvalidError(f"{path.name} line {reader.line_num}: {error}", reason="BAD_ROW", field="data") from None
        except UnicodeDecodeError:
            raise _not_utf8(path) from None


def _not_utf8(path: Path, line: int | None = None) -> InvalidError:
    where = f"{path.name} line {line}" if line else path.name
    return InvalidError(f"{where} is not UTF-8: save the file as UTF-8", reason="BAD_ROW", field="data")


def _read_parquet(path: Path) -> Iterable[Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise PreconditionError(
            "reading Parquet needs pyarrow: pip install pyarrow", reason="MISSING_PACKAGE"
        ) from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        line = " ".join(str(error).split())[:120]
        raise InvalidError(f"{path.name} is not a Parquet file: {line}", reason="BAD_ROW", field="data") from None
    yield from rows
