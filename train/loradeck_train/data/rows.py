"""Rows from a source: JSONL, CSV, Parquet, a folder of splits, the project's own sets, or a `datasets` name."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import loradeck_pocket
from loradeck_registry.errors import NotFoundError, PreconditionError
from loradeck_tasks.row_files import Row, find_file
from loradeck_tasks.row_files import iterate_rows as iterate_file

POCKET = {
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
_FIELD = "data.source"


def iterate_rows(source: str, split: str = "train", limit: int | None = None) -> Iterator[Row]:
    """Rows of `source` in order, at most `limit`, one at a time. Values are as the format has them (CSV: text).

    Raises NotFoundError (no such file, split or set), InvalidError (a malformed file, reason BAD_DATA) or
    PreconditionError (no rows, reason EMPTY_DATA).
    """
    if source.startswith("datasets:"):
        rows = _from_datasets(source.removeprefix("datasets:"), split)
    else:
        rows = iterate_file(find_file(source, split, POCKET, field=_FIELD), field=_FIELD)
    empty = True
    for row in islice(rows, limit):
        empty = False
        yield row
    if empty:
        raise PreconditionError(f"the data set {source} has no rows", reason="EMPTY_DATA", field=_FIELD)


def read_rows(source: str, split: str = "train", limit: int | None = None) -> list[Row]:
    """All rows of `iterate_rows`."""
    return list(iterate_rows(source, split, limit))


def describe_source(source: str) -> str:
    """`source` without any path of this machine: for records that travel."""
    if source.startswith(("pocket:", "datasets:")):
        return source
    return f"file:{Path(source).name}"


def _from_datasets(name: str, split: str) -> Iterator[Row]:
    import datasets

    parts = name.split("/")
    # `org/name/config` or `org/name`; a bare `name` is one of the hub's canonical sets.
    path, config = ("/".join(parts[:2]), parts[2]) if len(parts) == 3 else (name, None)
    try:
        loaded = datasets.load_dataset(path, config, split=split)
    except Exception as error:
        # `datasets` raises a dozen unrelated types here: no network, no such set, no such split, a script refused.
        line = " ".join(str(error).split())[:160]
        raise NotFoundError(f"cannot load `datasets:{name}` split `{split}`: {line}", field=_FIELD) from error
    # Arrow's files are mapped into memory, not read.
    for row in loaded:
        yield dict(row)
