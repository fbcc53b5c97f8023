"""What the commands of `loradeck train` share: options, loading a recipe, printing figures."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from loradeck_registry.errors import PreconditionError

if TYPE_CHECKING:
    from loradeck_registry.registry import Registry
    from loradeck_train.recipe.settings import Recipe

json_option = click.option(
    "--json", "json_path", metavar="PATH", help="Write the figures as JSON to PATH, - for stdout."
)
registry_option = click.option(
    "--registry", "url", envvar="LORADECK_REGISTRY", metavar="URL", help="Registry of bases and revisions."
)
publish_option = click.option(
    "--publish", metavar="NAME[@ALIAS]", help="Push the result under NAME, and move ALIAS to it."
)


def recipe_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that change a recipe, and those of every command."""
    for option in (
        json_option,
        registry_option,
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one recipe key (dotted)."),
        click.option("--data", metavar="SOURCE", help="Overrides data.source: a file, folder, pocket: or datasets:."),
        click.option("--base", metavar="REF", help="Overrides base: NAME[@…], hub:ORG/NAME or dir:FOLDER."),
    ):
        function = option(function)
    return function


def read_recipe(
    recipe: str, base: str | None, data: str | None, sets: tuple[str, ...], publish: str | None
) -> "Recipe":
    """The recipe with the options applied."""
    from loradeck_train.recipe.files import load_recipe

    overrides: dict[str, Any] = {}
    if base is not None:
        overrides["base"] = base
    if data is not None:
        overrides["data.source"] = data
    if publish is not None:
        name, alias = split_publish(publish)
        overrides["publish.name"] = name
        if alias is not None:
            overrides["publish.alias"] = alias
    return load_recipe(recipe, overrides, sets)


def split_publish(text: str) -> tuple[str, str | None]:
    """Name and alias of `NAME[@ALIAS]`."""
    name, separator, alias = text.partition("@")
    return name, alias if separator else None


def open_registry(url: str | None) -> "Registry | None":
    """The registry, if one is named."""
    if url is None:
        return None
    from loradeck_registry.registry import Registry

    return Registry.open(url)


def spinner(text: str) -> Any:
    """A status line while something slow is imported or read."""
    return Console(stderr=True).status(text)


def emit(figures: dict[str, Any], rows: dict[str, str | None], json_path: str | None, *tables: Table) -> None:
    """Print `rows` and `tables`, and write `figures` where the user wants them."""
    content = json.dumps(figures, indent=2, ensure_ascii=False)
    if json_path == "-":
        sys.stdout.write(content + "\n")
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, value)
    console = Console()
    console.print(table, highlight=False)
    for more in tables:
        console.print()
        console.print(more, highlight=False)
    if json_path is not None:
        try:
            Path(json_path).write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            raise PreconditionError(f"cannot write {json_path}: {error.strerror}") from error


def mebibytes(count: float) -> str:
    """Bytes in MiB, or GiB from ten of them on."""
    return f"{count / 2**30:,.1f} GiB" if count >= 10 * 2**30 else f"{count / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
