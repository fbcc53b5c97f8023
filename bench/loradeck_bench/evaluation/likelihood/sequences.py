"""Rows as token ids, with the tokens that are scored; rendered as training and serving render them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_bench.evaluation.likelihood.model import Loaded
from loradeck_bench.rows import COLUMNS, Row, field_names
from loradeck_registry.errors import InvalidError
from loradeck_tasks.blind import answer_end
from loradeck_tasks.rendering import render_example


@dataclass(frozen=True)
class Sequenced:
    """A row: `ids[scored:]` are scored, each given those before it; `text_bytes` is their text's length in UTF-8."""

    row: int
    ids: tuple[int, ...]
    scored: int
    text_bytes: int


def sequences(rows: Sequence[Row], loaded: Loaded, *, whole: bool) -> list[Sequenced]:
    """Every row with a reference. Scored is what a training learns: the answer and its end of turn, or a label token
    alone; with `whole` the prompt too, all but the first token. Raises InvalidError if a row lacks a field of the task,
    or no row has a reference."""
    column = COLUMNS[loaded.task.kind][-1]
    found = []
    for number, row in enumerate(rows):
        if not row[column].strip():
            continue
        names = field_names(row) if loaded.task.kind == "generate" else COLUMNS[loaded.task.kind][:-1]
        fields = {name: row[name] for name in names}
        said = row[column] if loaded.task.labels else row[column] + answer_end(loaded.task)
        prompt, answer = render_example(loaded.task, fields, said, loaded.tokenizer)
        answer = answer[:1] if loaded.task.uses_label_tokens else answer
        scored = 1 if whole else len(prompt)
        ids = (*prompt, *answer)
        found.append(Sequenced(number, ids, scored, _bytes(loaded.tokenizer, ids[scored:])))
    if not found:
        raise InvalidError("no row has a reference to score", reason="EMPTY_DATA", field="data")
    return found


def _bytes(tokenizer: Any, ids: Sequence[int]) -> int:
    return len(str(tokenizer.decode(list(ids), skip_special_tokens=True)).encode())
