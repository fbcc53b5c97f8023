"""Rows for an evaluation: checked columns of files or of the project's own sets, stratified samples."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import loradeck_pocket
from loradeck_bench.columns import Column, parse_columns
from loradeck_bench.text2sql import text2sql_rows
from loradeck_registry.errors import InvalidError
from loradeck_tasks.row_files import find_file, iterate_rows

Row = dict[str, str]

COLUMNS: dict[str, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "short_qa": ("context", "question", "short_answer"),
    "long_qa": ("context", "question", "long_answer"),
    "generate": ("prompt", "reference"),
}
"""Columns that each task needs; the last one is the reference. Those before it in `generate` are whatever fields the
adapter's template has."""
CATEGORY = "category"
"""Optional column of `generate`: what scores are broken down by."""

TASKS = tuple(COLUMNS)
"""Tasks that can be evaluated and loaded."""

DEFAULT_DATA = {"classification": "pocket:classification", "short_qa": "pocket:qa", "long_qa": "pocket:qa"}
"""Data of each task where none is named: the project's own test sets."""

_OPTIONAL = {"generate": ("reference", CATEGORY), "short_qa": ("context",), "long_qa": ("context",)}
_POCKET = {
    "pocket:classification": loradeck_pocket.CLASSIFICATION,
    "pocket:qa": loradeck_pocket.QUESTION_ANSWERING,
    "pocket:arithmetic": loradeck_pocket.ARITHMETIC,
    "pocket:instructions": loradeck_pocket.INSTRUCTIONS,
    "pocket:meanings": loradeck_pocket.MEANINGS,
    "pocket:sums": loradeck_pocket.SUMS,
    "pocket:queries": loradeck_pocket.QUERIES,
    "pocket:gsm8k": loradeck_pocket.GSM8K,
    "pocket:wikisql": loradeck_pocket.WIKISQL,
}


def read_sample(
    source: str | None, task: str, columns: Sequence[str], limit: int | None, *, optional: Sequence[str] = ()
) -> tuple[list[Row], list[Row], str]:
    """All rows of `source` (the task's own set if None), at most `limit` of them, and the name of what was read.

    `columns` are as a user writes them; the fields `optional` may be empty or missing in a row. Raises what `read_rows`
    raises, and InvalidError (NO_DATA) for a task that has no set of its own.
    """
    named = source or DEFAULT_DATA.get(task)
    if named is None:
        raise InvalidError(f"{task} has no data of its own: say --data", reason="NO_DATA", field="data")
    parsed = parse_columns(columns, None if task == "generate" else COLUMNS[task])
    every = read_rows(named, task, columns=parsed, optional=optional)
    return every, sample(every, limit, by="label" if task == "classification" else None), named


def read_rows(
    source: str,
    task: str,
    *,
    split: str = "test",
    columns: Mapping[str, Column] | None = None,
    optional: Sequence[str] = (),
) -> list[Row]:
    """Rows of `source` with the columns of `task` as text.

    `source` is a set that the project ships (`pocket:` and classification, qa, arithmetic, sums, instructions,
    meanings, queries, gsm8k or wikisql), a .jsonl, .csv or .parquet file, `text2sql:FILE`, or a folder with a file
    named after `split`. `columns` says where a column comes from if not from the one of its name. Rows of `generate`
    may lack a reference, which is then empty. Raises NotFoundError, or InvalidError for a missing column (named, with
    the row) or an empty set.
    """
    given = columns or {}
    wanted = {name: given.get(name, Column(name)) for name in _names(task, given)}
    rows: list[Row] = []
    path, found = _open(source, split)
    for number, raw in enumerate(found, start=1):
        rows.append(_check(raw, wanted, f"{path.name} row {number}", task, (*_OPTIONAL.get(task, ()), *optional)))
    if not rows:
        raise InvalidError(f"no rows in {path}", reason="EMPTY_DATA", field="data")
    for name in given:
        if not any(row[name].strip() for row in rows):
            raise InvalidError(
                f"{path.name}: column {given[name].name!r} is in no row", reason="MISSING_COLUMN", field=name
            )
    return rows


def _open(source: str, split: str) -> tuple[Path, Iterator[dict[str, Any]]]:
    kind, _, name = source.partition(":")
    if kind == "text2sql":
        return Path(name), text2sql_rows(Path(name), split)
    path = find_file(source, split, _POCKET, field="data")
    return path, iterate_rows(path, field="data")


def field_names(row: Row) -> list[str]:
    """The fields of a row of `generate` that fill a template: all but reference and category."""
    return [name for name in row if name not in ("reference", CATEGORY)]


def _names(task: str, given: Mapping[str, Column]) -> tuple[str, ...]:
    if task != "generate":
        return COLUMNS[task]
    fields = [name for name in given if name not in ("reference", CATEGORY)] or ["prompt"]
    return (*fields, "reference", CATEGORY)


def label_set(rows: Sequence[Row]) -> list[str]:
    """All labels of a classification set, sorted. Raises InvalidError below two."""
    labels = sorted({row["label"] for row in rows})
    if len(labels) < 2:
        raise InvalidError("the data hold fewer than two labels", reason="BAD_DATA", field="data")
    return labels


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


def _check(raw: Mapping[str, Any], wanted: Mapping[str, Column], where: str, task: str, optional: Sequence[str]) -> Row:
    row = {name: column.of(raw, where) for name, column in wanted.items()}
    if task == "generate":
        row |= {name: "" for name in optional if row[name] is None}
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
        empty = name not in optional and not str(value).strip()
        if empty or isinstance(value, dict | list | bytes):
            what = "is empty" if empty else f"holds a {type(value).__name__}, not text"
            raise InvalidError(f"{where}: column {wanted[name].name!r} {what}", reason="BAD_ROW", field=name)
    return {name: str(value) for name, value in row.items()}
