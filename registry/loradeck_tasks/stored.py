"""Task and probe as a manifest holds them: what a publisher wrote, whoever that is, and so to be read with care."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from loradeck_registry.errors import PreconditionError
from loradeck_tasks.probe import Probe
from loradeck_tasks.task import Task

M = TypeVar("M", bound=BaseModel)


def stored_task(content: Mapping[str, Any], what: str) -> Task:
    """The task of `what`. Raises PreconditionError (BAD_TASK) with one line."""
    return _read(Task, content, what, "task", "BAD_TASK")


def stored_probe(content: Mapping[str, Any], what: str) -> Probe:
    """The probe of `what`. Raises PreconditionError (BAD_PROBE) with one line."""
    return _read(Probe, content, what, "probe", "BAD_PROBE")


def _read(model: type[M], content: Mapping[str, Any], what: str, part: str, reason: str) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step)[:40] for step in first["loc"][:6])
        why = " ".join(first["msg"].removeprefix("Value error, ").split())[:200]
        raise PreconditionError(
            f"the {part} of {what} is malformed ({where + ': ' if where else ''}{why}): publish it anew",
            reason=reason,
            field="adapter",
        ) from None
