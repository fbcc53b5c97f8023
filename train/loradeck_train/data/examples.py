"""From rows to the task's fields: column mapping, labels, the held-out part, and the digest of what was used."""

import hashlib
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loradeck_registry.errors import InvalidError
from loradeck_tasks.task import TaskKind
from loradeck_train.data.rows import Row, describe_source, read_rows
from loradeck_train.recipe.settings import Column, DataSettings, Recipe, ValidationData


@dataclass(frozen=True)
class Example:
    """One row as the task sees it: the template's fields, and the answer (for classification the label's name)."""

    values: Mapping[str, str]
    answer: str


@dataclass(frozen=True)
class DataSet:
    """The rows of a run. `digest` is sha256 over the canonical JSON of all examples, training first."""

    training: tuple[Example, ...]
    validation: tuple[Example, ...]
    labels: tuple[str, ...]
    digest: str
    source: str


def load_data(recipe: Recipe, fields: Sequence[str]) -> DataSet:
    """Read, map and check the rows of a recipe whose template names `fields`.

    Raises NotFoundError, PreconditionError (EMPTY_DATA) or InvalidError with reason MISSING_COLUMN, BAD_ROW,
    BAD_LABEL (a label outside the set, with its row) or BAD_DATA.
    """
    settings, kind = recipe.data, recipe.task.kind
    answer = answer_field(kind)
    wanted = (*fields, answer)
    _check_columns(settings, wanted)
    rows = read_rows(settings.source, settings.split, settings.limit)
    training = map_rows(rows, settings.columns, wanted, settings.source)
    held_out: list[Example] = []
    validation = settings.validation
    listed = None if recipe.task.labels == "from_data" else recipe.task.labels
    if kind == "classification" and listed is not None:
        # Before rows are held out, so that the numbers are those of the file.
        _check_labels(training, listed, settings.source)
    if validation is not None and validation.fraction is not None:
        training, held_out = _hold_out(training, validation, recipe.seed)
    elif validation is not None:
        held_out_source = validation.source or settings.source
        rows = read_rows(held_out_source, validation.split or settings.split, validation.limit)
        held_out = map_rows(rows, settings.columns, wanted, held_out_source)
    labels: tuple[str, ...] = ()
    if kind == "classification":
        labels = tuple(listed) if listed is not None else tuple(sorted({e.answer for e in training}))
        if validation is not None and validation.fraction is not None:
            _check_every_label_is_trained(held_out, labels)
        else:
            _check_labels(held_out, labels, "the validation rows")
    return DataSet(
        tuple(training), tuple(held_out), labels, digest([*training, *held_out]), describe_source(settings.source)
    )


def answer_field(kind: TaskKind) -> str:
    """Name of the field that holds what the model shall say."""
    return "label" if kind == "classification" else "answer"


def map_rows(
    rows: Sequence[Row], columns: Mapping[str, str | Column], wanted: Sequence[str], source: str
) -> list[Example]:
    """Examples from rows; the last of `wanted` is the answer. Row numbers in errors count from 1."""
    answer = wanted[-1]
    examples: list[Example] = []
    for number, row in enumerate(rows, 1):
        values = {field: _cell(row, columns.get(field, field), field, number, source) for field in wanted}
        examples.append(Example({k: v for k, v in values.items() if k != answer}, values[answer]))
    return examples


def digest(examples: Sequence[Example]) -> str:
    """`sha256:` over one canonical JSON line per example: equal for equal text, whatever the file format."""
    total = hashlib.sha256()
    for example in examples:
        line = json.dumps([dict(example.values), example.answer], sort_keys=True, ensure_ascii=False)
        total.update(line.encode() + b"\n")
    return f"sha256:{total.hexdigest()}"


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


def _check_columns(settings: DataSettings, wanted: Sequence[str]) -> None:
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


def _hold_out(examples: list[Example], validation: ValidationData, seed: int) -> tuple[list[Example], list[Example]]:
    count = max(1, round(len(examples) * (validation.fraction or 0.0)))
    if count >= len(examples):
        raise InvalidError(
            f"data.validation.fraction leaves no training rows: there are {len(examples)}",
            reason="BAD_RECIPE",
            field="data.validation.fraction",
        )
    chosen = set(random.Random(seed).sample(range(len(examples)), count))
    held_out = [e for i, e in enumerate(examples) if i in chosen]
    return [e for i, e in enumerate(examples) if i not in chosen], held_out[: validation.limit]


def _check_every_label_is_trained(held_out: Sequence[Example], labels: Sequence[str]) -> None:
    unseen = sorted({e.answer for e in held_out} - set(labels))
    if unseen:
        raise InvalidError(
            f"all rows of label {unseen[0][:60]!r} were held out for validation: use a smaller "
            "data.validation.fraction, another seed, or validation rows of their own",
            reason="BAD_LABEL",
            field="data.validation.fraction",
        )


def _check_labels(examples: Sequence[Example], labels: Sequence[str], source: str) -> None:
    known = set(labels)
    for number, example in enumerate(examples, 1):
        if example.answer not in known:
            raise InvalidError(
                f"row {number} of {source}: label {example.answer[:60]!r} is outside the set ({', '.join(labels)})",
                reason="BAD_LABEL",
                field="data.columns.label",
            )
