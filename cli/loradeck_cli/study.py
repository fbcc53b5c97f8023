"""`loradeck study`: not there yet, and says so."""

import click

from loradeck_registry.errors import UnimplementedError


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1)
def command(arguments: tuple[str, ...]) -> None:
    """Repeat a published study (not implemented yet)."""
    raise UnimplementedError("`loradeck study` is not implemented yet")
