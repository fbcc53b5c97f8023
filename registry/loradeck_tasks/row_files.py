"""Rows from JSONL, CSV and Parquet files, one at a time: the one reader of training and of evaluation."""

import csv
import difflib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError

Row = dict[str, Any]
_PARQUET_ROWS = 1024


def find_file(source: str, split: str, named: Mapping[str, Path], *, field: str) -> Path:
    """The file of `source`: a name among `named` (such as `pocket:qa`), a file, or a folder with a file named after
    `split`. `field` is what errors point at. Raises NotFoundError or InvalidError (BAD_DATA, an ending unknown here).
    """
    path = named.get(source, Path(source))
    if source not in named and source.startswith("pocket:"):
        near = difflib.get_close_matches(source, named, n=1, cutoff=0.8)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(named)}"
        raise NotFoundError(f"no data set `{source}`; {hint}", field=field)
    if path.is_dir():
        found = [path / f"{split}{suffix}" for suffix in READERS if (path / f"{split}{suffix}").is_file()]
        if not found:
            there = ", ".join(sorted(p.name for p in path.iterdir() if p.suffix in READERS)) or "no data files"
            raise NotFoundError(f"no split `{split}` in {source}; there: {there}", field=field)
        return found[0]
    if not path.is_file():
        raise NotFoundError(
            f"no data at {source}: give a file, a folder with a file per split, or one of {', '.join(named)}",
            field=field,
        )
    if path.suffix not in READERS:
        raise InvalidError(f"cannot read {path.name}: use one of {', '.join(READERS)}", reason="BAD_DATA", field=field)
    return path


def iterate_rows(path: Path, *, field: str) -> Iterator[Row]:
    """Rows of a file in order, without holding it in memory; values are as the format has them (CSV: text).

    Raises InvalidError (BAD_DATA) with the file's name and line where it is damaged, PreconditionError
    (MISSING_PACKAGE) for Parquet without pyarrow. `field` is what errors point at.
    """
    try:
        yield from READERS[path.suffix](path)
    except _DamagedError as error:
        raise InvalidError(f"{path.name}: {error}", reason="BAD_DATA", field=field) from error.__cause__


class _DamagedError(Exception):
    """What is wrong with a file, and where."""


def _from_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise _DamagedError(f"line {number} is not UTF-8; save the file as UTF-8") from error
            except json.JSONDecodeError as error:
                raise _DamagedError(f"line {number} is not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise _DamagedError(f"line {number} is not a JSON object")
            yield row


def _from_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise _DamagedError(f"line {reader.line_num} has another number of columns than the header")
                yield dict(row)
        except csv.Error as error:
            raise _DamagedError(f"line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise _DamagedError(f"line {_undecodable_line(path)} is not UTF-8; save the file as UTF-8") from error


def _undecodable_line(path: Path) -> int:
    """Number of the first line that is not UTF-8; the decoder reads ahead and does not know it."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def _from_parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise PreconditionError(
            "reading Parquet needs pyarrow: pip install pyarrow", reason="MISSING_PACKAGE"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                yield from batch.to_pylist()
    except ArrowException as error:
        raise _DamagedError(f"not a Parquet file, or a damaged one ({str(error)[:80]})") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _from_jsonl,
    ".csv": _from_csv,
    ".parquet": _from_parquet,
}
"""File endings that can be read."""
