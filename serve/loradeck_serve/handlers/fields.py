"""Checks of request fields that several handlers share."""

from collections.abc import Callable, Sequence

from loradeck_registry.errors import InvalidError
from loradeck_serve.access.grants import Grants
from loradeck_serve.config import Limits
from loradeck_serve.domain import Sampling
from loradeck_serve.engine.base import GenerateSettings
from loradeck_tasks.task import MAX_LABEL, MAX_LABELS, Task

MOST_STOPS = 8
LONGEST_STOP = 64


def check_text(value: str, field: str, limits: Limits, required: bool = True) -> None:
    """Raise InvalidError (EMPTY_FIELD, TEXT_TOO_LONG, BAD_TEXT) unless `value` may be rendered."""
    if required and not value.strip():
        raise InvalidError(f"`{field}` is empty", reason="EMPTY_FIELD", field=field)
    if len(value) > limits.text_characters:
        raise InvalidError(
            f"`{field}` has {len(value)} characters, the limit is {limits.text_characters}",
            reason="TEXT_TOO_LONG",
            field=field,
            metadata={"characters": str(len(value)), "limit": str(limits.text_characters)},
        )


def check_labels(labels: Sequence[str]) -> None:
    """Raise InvalidError (BAD_LABELS), which names the label, for what no task could have as its labels."""
    if len(labels) > MAX_LABELS:
        raise _bad_labels(f"`labels` holds {len(labels)} labels: give at most {MAX_LABELS}")
    seen: set[str] = set()
    for label in labels:
        if not label:
            raise _bad_labels("`labels` holds an empty label: give each one a name")
        if len(label) > MAX_LABEL:
            raise _bad_labels(f"the label {label[:40]!r}… has {len(label)} characters: give at most {MAX_LABEL}")
        if label in seen:
            raise _bad_labels(f"`labels` holds {label!r} twice: give each label once")
        seen.add(label)


def _bad_labels(message: str) -> InvalidError:
    return InvalidError(message, reason="BAD_LABELS", field="labels")


def check_sampling(sampling: Sampling, limits: Limits, grants: Grants) -> None:
    """Raise InvalidError (OUT_OF_RANGE) for the first setting outside its range."""
    most = grants.most_tokens(limits.max_tokens)
    checks: tuple[tuple[str, float | None, Callable[[float], bool], str], ...] = (
        ("temperature", sampling.temperature, lambda v: 0 <= v <= 2, "0 to 2"),
        ("top_p", sampling.top_p, lambda v: 0 < v <= 1, "greater than 0, at most 1"),
        ("top_k", sampling.top_k, lambda v: v >= 0, "0 or greater"),
        ("max_tokens", sampling.max_tokens, lambda v: 1 <= v <= most, f"1 to {most}"),
    )
    for name, value, holds, wanted in checks:
        # A NaN holds no comparison, and so is refused with the rest.
        if value is not None and not holds(value):
            given = str(value) if isinstance(value, int) else f"{value:g}"
            raise InvalidError(
                f"`sampling.{name}` is {given}: it must be {wanted}", reason="OUT_OF_RANGE", field=f"sampling.{name}"
            )
    if len(sampling.stop) > MOST_STOPS or any(not 1 <= len(stop) <= LONGEST_STOP for stop in sampling.stop):
        raise InvalidError(
            f"`sampling.stop` takes at most {MOST_STOPS} strings of 1 to {LONGEST_STOP} characters",
            reason="OUT_OF_RANGE",
            field="sampling.stop",
        )


def generate_settings(
    sampling: Sampling, task: Task, most_tokens: int, stop_token_ids: tuple[int, ...], whole: bool = False
) -> GenerateSettings:
    """The request's settings with the task's defaults filled in, and at most `most_tokens` tokens."""
    temperature, top_p, top_k = sampling.applied(task.sampling)
    wanted = task.max_tokens if sampling.max_tokens is None else sampling.max_tokens
    return GenerateSettings(
        max_tokens=min(wanted, most_tokens),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=sampling.seed,
        stop_token_ids=stop_token_ids,
        whole=whole,
    )
