"""`loradeck train data`: build data sets from raw text, and count the tokens of a recipe's."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from loradeck_cli.number import Number

if TYPE_CHECKING:
    from loradeck_train.building.build import Report
    from loradeck_train.building.endpoint import EndpointSettings

F = TypeVar("F", bound=Callable[..., Any])
KEY = "OPENAI_API_KEY"


@click.group("data")
def command() -> None:
    """Build classification and QA sets from raw text, and count tokens."""


def _endpoint(function: F) -> F:
    """Options of everything that asks an endpoint."""
    for option in (
        click.option("--json", "json_path", metavar="PATH", help="Write the report as JSON; - for standard output."),
        click.option("--limit", type=click.IntRange(1), help="Use at most the first rows."),
        click.option("--price-out", type=Number(0), default=0.0, help="Per million tokens that come back."),
        click.option("--price-in", type=Number(0), default=0.0, help="Per million tokens that are sent."),
        click.option("--attempts", type=click.IntRange(1), default=3, show_default=True, help="For a malformed reply."),
        click.option("--per-minute", type=Number(0, min_open=True), help="Most requests per minute."),
        click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="At a time."),
        click.option("--model", required=True, help="Name of the model at the endpoint."),
        click.option(
            "--endpoint", required=True, metavar="URL", help="OpenAI-compatible, such as http://HOST:PORT/v1."
        ),
        click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder."),
    ):
        function = option(function)
    return function


@command.command()
@click.argument("source")
@click.option("--class", "classes", multiple=True, required=True, metavar="NAME", help="A class; repeat for each.")
@click.option("--text-column", default="text", show_default=True)
@_endpoint
def classify(
    source: str, classes: tuple[str, ...], text_column: str, output: Path, limit: int | None, json_path: str | None,
    **asking: Any,
) -> None:  # fmt: skip
    """Give every text in SOURCE its class: one yes-or-no question per class. Texts with none or with several are set
    aside. The key is read from OPENAI_API_KEY. Run it again to go on after an interruption."""
    from loradeck_bench.output import ensure_writable
    from loradeck_train.building.build import build_classification
    from loradeck_train.building.sources import texts

    ensure_writable(json_path)
    rows = texts(source, text_column, limit)
    _tell(build_classification(rows, classes, _settings(asking), output), output, json_path)


@command.command()
@click.argument("source")
@click.option("--question-column", default="question", show_default=True)
@click.option("--answer-column", default="answer", show_default=True)
@_endpoint
def answers(
    source: str, question_column: str, answer_column: str, output: Path, limit: int | None, json_path: str | None,
    **asking: Any,
) -> None:  # fmt: skip
    """Write a short and a long answer to every question in SOURCE: rows with two columns, or the Posts.xml of a
    StackExchange dump. The key is read from OPENAI_API_KEY. Run it again to go on after an interruption."""
    from loradeck_bench.output import ensure_writable
    from loradeck_train.building.build import build_answers
    from loradeck_train.building.sources import threads

    ensure_writable(json_path)
    rows = threads(source, question_column, answer_column, limit)
    _tell(build_answers(rows, _settings(asking), output), output, json_path)


@command.command()
@click.argument("recipe")
@click.option("--data", metavar="SOURCE", help="Overrides data.source.")
@click.option("--base", metavar="REF", help="Overrides base.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override one recipe key (dotted).")
@click.option("--registry", "url", envvar="LORADECK_REGISTRY", metavar="URL", help="Registry of bases.")
@click.option("--json", "json_path", metavar="PATH", help="Write the figures as JSON; - for standard output.")
def stats(
    recipe: str, data: str | None, base: str | None, sets: tuple[str, ...], url: str | None, json_path: str | None
) -> None:
    """Tokens of RECIPE's data by task: system prompt, prompts, answers, and what leaks into the held-out rows."""
    from rich.console import Console
    from rich.table import Table

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_train.recipe.files import load_recipe

    ensure_writable(json_path)
    overrides = {key: value for key, value in (("data.source", data), ("base", base)) if value is not None}
    loaded = load_recipe(recipe, overrides, sets)
    from loradeck_registry.registry import Registry
    from loradeck_train.prepare import prepare

    prepared = prepare(loaded, Registry.open(url) if url else None)
    leakage = {name: found.as_json() for name, found in prepared.data.leakage.items()}
    if json_path:
        write_json({"tasks": list(prepared.statistics), "leakage": leakage}, json_path)
    console = Console(stderr=json_path == "-")
    table = Table(title="tokens", title_justify="left", show_header=False)
    for key in prepared.statistics[0]:
        values = (row[key] for row in prepared.statistics)
        table.add_row(key.replace("_", " "), *(f"{v:,}" if isinstance(v, int) else str(v) for v in values))
    console.print(table)
    for name, found in prepared.data.leakage.items():
        console.print(found.sentence(name), highlight=False)


def _settings(asking: dict[str, Any]) -> "EndpointSettings":
    from loradeck_bench.extra import DATA, require
    from loradeck_train.building.endpoint import EndpointSettings

    require(DATA)
    return EndpointSettings(url=asking.pop("endpoint"), key=os.environ.get(KEY), **asking)


def _tell(report: "Report", output: Path, json_path: str | None) -> None:
    from rich.console import Console

    from loradeck_bench.output import write_json

    figures = report.as_json()
    if json_path:
        write_json(figures, json_path)
    console, usage = Console(stderr=json_path == "-"), figures["usage"]
    aside = ", ".join(f"{count} {reason}" for reason, count in figures["set_aside"].items()) or "none"
    console.print(f"{figures['rows']} rows in {output}; set aside: {aside}", highlight=False)
    console.print(
        f"{usage['requests']} requests, {usage['cached']} replies from the cache, {usage['malformed']} malformed, "
        f"{usage['refusals']} refused, {usage['prompt_tokens']:,} tokens sent, {usage['completion_tokens']:,} back, "
        f"cost {usage['cost']:g}",
        highlight=False,
    )
