"""Options and endings that the commands of `loradeck eval` share."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loradeck_cli.number import Number

if TYPE_CHECKING:
    from loradeck_bench.evaluation.metrics import MetricSettings

TASKS = ("classification", "short_qa", "long_qa", "generate")
Command = Callable[..., None]


def data_options(function: Command) -> Command:
    """`--data`, `--column`, `--limit`."""
    for option in (
        click.option(
            "--limit", type=click.IntRange(min=1), help="A sample of so many rows, seed 0; labels keep shares."
        ),
        click.option(
            "--column", "columns", multiple=True, metavar="FIELD=COLUMN[:PATTERN]", help="Where a field comes from."
        ),
        click.option(
            "--data", metavar="PATH", help="JSONL, CSV, Parquet, text2sql:FILE, or a set of the project (pocket:…)."
        ),
    ):
        function = option(function)
    return function


def metric_options(function: Command) -> Command:
    """What is measured of answers, and what metrics need; `settings_of` reads them."""
    for option in (
        click.option(
            "--query-rows", type=click.IntRange(min=1), default=10_000, show_default=True, help="Rows a query."
        ),
        click.option("--query-seconds", type=Number(min=0.01), default=5.0, show_default=True, help="Time of a query."),
        click.option("--database", type=click.Path(path_type=Path), help="SQLite file that SQL answers are run on."),
        click.option("--marker", default="####", show_default=True, help="What stands before the number of gsm8k."),
        click.option(
            "--embedding-model", type=click.Path(path_type=Path), help="Local folder for bert_score and sem_sim."
        ),
        click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Metric of answers; may be repeated."),
    ):
        function = option(function)
    return function


def settings_of(options: Mapping[str, Any]) -> "MetricSettings":
    """The values of `metric_options`, without the metrics' names."""
    from loradeck_bench.evaluation.metrics import MetricSettings

    return MetricSettings(
        options["embedding_model"],
        options["marker"],
        options["database"],
        options["query_seconds"],
        options["query_rows"],
    )


def result_options(function: Command) -> Command:
    """Where the result goes: `--json`, `--html`, `--attach` with `--registry`; `finish` takes them."""
    for option in (
        click.option("--attach", is_flag=True, help="Attach the metrics to the revision that answered."),
        click.option(
            "--registry", "registry_url", envvar="LORADECK_REGISTRY", metavar="URL", help="Registry of the revision."
        ),
        click.option("--html", "html_path", metavar="PATH", help="Write one self-contained page."),
        click.option(
            "--json", "json_path", metavar="PATH", help="Write figures and every answer; - for standard output."
        ),
    ):
        function = option(function)
    return function


def check_result_options(options: Mapping[str, Any]) -> None:
    """Raise before a long run what would fail at its end."""
    from loradeck_bench.extra import METRICS, PAGES, require
    from loradeck_bench.output import ensure_writable
    from loradeck_registry.registry import Registry

    require(METRICS, *([PAGES] if options["html_path"] else []))
    ensure_writable(options["json_path"], options["html_path"])
    if options["attach"]:
        if not options["registry_url"]:
            raise click.UsageError("--attach needs --registry")
        Registry.open(options["registry_url"])


def finish(result: Mapping[str, Any], title: str, options: Mapping[str, Any]) -> None:
    """Write, attach, and exit with 1 (130 if interrupted) for a run that was broken off."""
    from loradeck_bench.output import open_for_writing, write_json

    if options["json_path"]:
        write_json(result, options["json_path"])
    if options["html_path"]:
        from loradeck_bench.evaluation.page import render_page

        with open_for_writing(options["html_path"]) as out:
            out.write(render_page(result, title))
    unfinished = result.get("unfinished")
    if unfinished:
        click.echo(f"error: {unfinished}; the figures are of what was answered before", err=True)
        sys.exit(130 if unfinished.startswith("interrupted") else 1)
    if options["attach"]:
        from loradeck_bench.evaluation.attach import attach
        from loradeck_registry.registry import Registry

        revision, added = attach(Registry.open(options["registry_url"]), result)
        click.echo(f"attached to {revision} as evaluation {added.number}", err=True)
