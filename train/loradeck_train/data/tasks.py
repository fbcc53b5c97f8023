"""The task of a run: the recipe's settings, the labels, and new tokens placed on the base's reserved rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_registry.manifest import BaseIdentity
from loradeck_tasks.blind import BLIND
from loradeck_tasks.defaults import default_task
from loradeck_tasks.rendering import chat_template_digest, tokenizer_digest, tokenizer_for
from loradeck_tasks.task import MAX_ADDED_TOKENS, AddedToken, Label, Task
from loradeck_train.recipe.task import TaskSettings

_STAND_IN = (Label(name="a"), Label(name="b"))
_MAX_CONTENT = 64


def template_fields(settings: TaskSettings) -> tuple[str, ...]:
    """Fields that the task's template names. Raises InvalidError (BAD_RECIPE) for a bad template."""
    labels = _STAND_IN if settings.kind == "classification" else ()
    return _build(settings, labels=labels).fields


def make_task(settings: TaskSettings, labels: Sequence[str], base: BaseIdentity, folder: Path) -> Task:
    """The task as it is published: labels, added tokens with their ids, digests of tokenizer and chat template.

    New tokens take the ids from `base.vocabulary` on, label tokens first. Raises PreconditionError (NO_RESERVED_ROWS)
    if the base has no rows there, InvalidError (BAD_RECIPE) if the settings do not make a task.
    """
    with_tokens = settings.label_tokens and settings.kind == "classification"
    named = [
        Label(name=name, token=label_token(name, index) if with_tokens else None) for index, name in enumerate(labels)
    ]
    contents = [label.token for label in named if label.token is not None] + list(settings.added_tokens)
    if settings.format == "blind":
        contents += [token for token in BLIND if token not in contents]
    if len(contents) > MAX_ADDED_TOKENS:
        raise InvalidError(
            f"the task adds {len(contents)} tokens and {MAX_ADDED_TOKENS} is the limit"
            + (": set task.label_tokens to false to score labels as text" if with_tokens else ""),
            reason="BAD_RECIPE",
            field="task.label_tokens",
        )
    spare = base.rows - base.vocabulary
    if len(contents) > spare:
        raise PreconditionError(
            f"the task adds {len(contents)} tokens and the base {base.reference} has {spare} reserved rows: store a "
            f"copy with room by `loradeck registry add-base --reserve-tokens {MAX_ADDED_TOKENS}` and use that as base",
            reason="NO_RESERVED_ROWS",
        )
    added = tuple(AddedToken(content=c, id=base.vocabulary + i) for i, c in enumerate(contents))
    return _build(
        settings,
        labels=tuple(named),
        added_tokens=added,
        tokenizer_digest=tokenizer_digest(folder),
        chat_template_digest=chat_template_digest(tokenizer_for(None, folder)) if settings.format == "chat" else None,
    )


def make_part_task(settings: TaskSettings, labels: Sequence[str]) -> Task:
    """The task of rows that are trained along: it adds no tokens, so its labels are text."""
    return _build(settings, labels=tuple(Label(name=name) for name in labels))


def label_token(name: str, index: int) -> str:
    """The new token of a label: readable where it fits."""
    content = f"<|label:{name}|>"
    return content if len(content) <= _MAX_CONTENT else f"<|label:{index}|>"


def _build(settings: TaskSettings, **computed: Any) -> Task:
    blind = settings.format == "blind"
    changes: dict[str, Any] = {
        "format": "plain" if blind else settings.format,
        "text_normalisation": settings.text_normalisation,
        "stop": (*settings.stop, BLIND[3]) if blind else settings.stop,
        **computed,
    }
    if settings.system is not None or blind:
        changes["system"] = settings.system or None
    if settings.template is not None:
        changes["template"] = settings.template
    if blind:
        template = (
            settings.template or default_task(settings.kind, labels=_STAND_IN if changes["labels"] else ()).template
        )
        changes["template"] = f"{BLIND[0]}{template}{BLIND[1]}{BLIND[2]}"
    if settings.max_tokens is not None:
        changes["max_tokens"] = settings.max_tokens
    try:
        return default_task(settings.kind, **changes)
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise InvalidError(f"recipe task: {message}", reason="BAD_RECIPE", field="task") from error
