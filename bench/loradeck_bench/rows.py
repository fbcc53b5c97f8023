"""Rows for an evaluation: checked columns of files or of the project's own sets, stratified samples."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import loradeck_pocket
from loradeck_bench.columns import Column
from loradeck_registry.errors import InvalidError
from loradeck_tasks.row_files import find_file, iterate_rows

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
    path = find_file(source, split, _POCKET, field="data")
    wanted = {name: (columns or {}).get(name, Column(name)) for name in COLUMNS[task]}
    rows: list[Row] = []
    for number, raw in enumerate(iterate_rows(path, field="data"), start=1):
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


def _check(raw: Mapping[str, Any], wanted: Mapping[str, Column], where: str, task: str) -> Row:
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
