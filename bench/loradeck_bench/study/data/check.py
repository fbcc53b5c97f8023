"""Checks a file of a data set: its digest where one is known, its rows and columns where it has rows."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from loradeck_bench.study.data.catalog import DataFile
from loradeck_registry.errors import InvalidError
from loradeck_tasks.row_files import READERS, iterate_rows

_FIELD = "data"


@dataclass(frozen=True)
class Checked:
    """A file that is in order. `rows` is None for one that has none."""

    name: str
    bytes: int
    sha256: str
    rows: int | None
    known: bool
    """Whether the digest is the one that the study knows."""


def check_file(path: Path, file: DataFile, *, other: bool = False) -> Checked:
    """Look at `path`. With `other`, a digest and a number of rows that differ from the known ones are taken. Raises
    InvalidError: OTHER_VERSION for those, BAD_DATA for a damaged file, BAD_ROW with the row's number for an empty or
    missing column."""
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    rows = _count(path, file) if path.suffix in READERS else None
    differs = ""
    if file.sha256 is not None and digest != file.sha256:
        differs = f"its sha256 is {digest[:16]}…, not {file.sha256[:16]}…"
    elif file.rows is not None and rows != file.rows:
        differs = f"it has {rows} rows, not {file.rows}"
    if differs and not other:
        raise InvalidError(
            f"{path.name} is not the version that the study knows: {differs}; --other-version takes it all the same",
            reason="OTHER_VERSION",
            field=_FIELD,
        )
    return Checked(path.name, path.stat().st_size, digest, rows, not differs and file.sha256 is not None)


def _count(path: Path, file: DataFile) -> int:
    rows = 0
    for rows, row in enumerate(iterate_rows(path, field=_FIELD), 1):
        for column in file.columns:
            value = row.get(column)
            if value is None or not str(value).strip():
                what = "is missing" if column not in row else "is empty"
                raise InvalidError(f"{path.name} row {rows}: column {column!r} {what}", reason="BAD_ROW", field=_FIELD)
    if not rows:
        raise InvalidError(f"{path.name} has no rows", reason="EMPTY_DATA", field=_FIELD)
    return rows
