"""Options and checks that the commands of `loradeck registry` share."""

from collections.abc import Callable
from typing import Any

import click

from loradeck_registry.errors import InvalidError


def registry_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--registry` (argument `url`) and `--json` (argument `json_path`)."""
    function = click.option(
        "--json", "json_path", metavar="PATH", help="Write the result as JSON to PATH, or - for standard output."
    )(function)
    return click.option(
        "--registry",
        "url",
        envvar="LORADECK_REGISTRY",
        metavar="URL",
        callback=_named,
        help="Folder or address (s3://…) of the registry [default: LORADECK_REGISTRY].",
    )(function)


def _named(context: click.Context, parameter: click.Parameter, url: str | None) -> str:
    if not url and not context.resilient_parsing:
        raise InvalidError(
            "no registry is named: add --registry FOLDER-OR-ADDRESS, or set LORADECK_REGISTRY", field="registry"
        )
    return url or ""


def checked_task(content: dict[str, Any]) -> dict[str, Any]:
    """A task as JSON, checked. Raises InvalidError naming the field."""
    from pydantic import ValidationError

    from loradeck_tasks.task import Task

    try:
        return Task.model_validate(content).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidError(
            f"the task is not valid: {place + ': ' if place else ''}{first['msg']}", field="task"
        ) from error
