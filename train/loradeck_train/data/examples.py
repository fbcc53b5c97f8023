"""From rows to the task's fields: column mapping, checks, and the digest of what was used."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from loradeck_registry.errors import InvalidError
from loradeck_tasks.row_files import Row
from loradeck_tasks.task import TaskKind
from loradeck_train.recipe.data import Column, DataSettings, MixtureData


@dataclass(frozen=True)
class Example:
    """One row as the task sees it: the template's fields, and the answer (for classification the label's name)."""

    values: Mapping[str, str]
    answer: str


def answer_field(kind: TaskKind) -> str:
    """Name of the field that holds what the model shall say."""
    return "label" if kind == "classification" else "answer"


def map_rows(
    rows: Iterable[Row], columns: Mapping[str, str | Column], wanted: Sequence[str], source: str
) -> Iterator[Example]:
    """Examples from rows, one at a time; the last of `wanted` is the answer. Row numbers in errors count from 1.

    Raises InvalidError with reason MISSING_COLUMN or BAD_ROW.
    """
    answer = wanted[-1]
    for number, row in enumerate(rows, 1):
        values = {field: _cell(row, columns.get(field, field), field, number, source) for field in wanted}
        yield Example({k: v for k, v in values.items() if k != answer}, values[answer])


def digest(examples: Iterable[Example]) -> str:
    """`sha256:` over one canonical JSON line per example: equal for equal text, whatever the file format."""
    total = hashlib.sha256()
    for example in examples:
        total.update(dump_example(example) + b"\n")
    return f"sha256:{total.hexdigest()}"


def dump_example(example: Example) -> bytes:
    """One line of canonical JSON."""
    return json.dumps([dict(example.values), example.answer], sort_keys=True, ensure_ascii=False).encode()


def load_example(line: bytes) -> Example:
    """Undo `dump_example`."""
    values, answer = json.loads(line)
    return Example(values, answer)


def _cell(row: Row, column: str | Column, field: str, number: int, source: str) -> str:
    name = column if isinstance(column, str) else column.column
    if name not in row:
        raise InvalidError(
            f"no column `{name}` for `{field}` in row {number} of {source}; there: {', '.join(map(str, row))} "
            f"(map it with data.columns.{field})",
            reason="MISSING_COLUMN",
            field=f"data.columns.{field}",
        )
    text = _text(row[name], f"row {number} of {source}: column `{name}`", field)
    if isinstance(column, Column):
        match = re.search(column.pattern, text)
        if match is None:
            raise _bad_row(f"row {number} of {source}: column `{name}` does not match the pattern of `{field}`", field)
        text = match.group(1).strip()
    if not text:
        raise _bad_row(f"row {number} of {source}: column `{name}` is empty", field)
    return text


def _text(value: object, where: str, field: str) -> str:
    """A cell as text: numbers and truth values as they are written, what is absent as nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, dict | list | bytes):
        raise _bad_row(f"{where} holds a {type(value).__name__}, not text", field)
    text = str(value).strip()
    if not _is_unicode(text):
        raise _bad_row(f"{where} holds half of a surrogate pair, which is no character", field)
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad_row(message: str, field: str) -> InvalidError:
    return InvalidError(message, reason="BAD_ROW", field=f"data.columns.{field}")


def check_columns(settings: DataSettings | MixtureData, wanted: Sequence[str]) -> None:
    """Raise InvalidError (BAD_RECIPE) for a column of no use to the task, or a pattern without its one group."""
    unknown = sorted(set(settings.columns) - set(wanted))
    if unknown:
        raise InvalidError(
            f"data.columns names `{unknown[0]}`, which the task does not use; it uses {', '.join(wanted)}",
            reason="BAD_RECIPE",
            field=f"data.columns.{unknown[0]}",
        )
    for field, column in settings.columns.items():
        if isinstance(column, str):
            continue
        try:
            groups = re.compile(column.pattern).groups
        except re.error as error:
            raise _bad_pattern(field, str(error)) from error
        if groups != 1:
            raise _bad_pattern(field, f"it has {groups} groups and needs one")


def _bad_pattern(field: str, what: str) -> InvalidError:
    return InvalidError(
        f"data.columns.{field}.pattern: {what}", reason="BAD_RECIPE", field=f"data.columns.{field}.pattern"
    )


def check_labels(examples: Sequence[Example], labels: Sequence[str], source: str) -> None:
    """Raise InvalidError (BAD_LABEL) for the first example whose label is not in the set."""
    known = set(labels)
    for number, example in enumerate(examples, 1):
        if example.answer not in known:
            raise InvalidError(
                f"row {number} of {source}: label {example.answer[:60]!r} is outside the set ({', '.join(labels)})",
                reason="BAD_LABEL",
                field="data.columns.label",
            )
