"""`loradeck eval`: quality of served models and of answers, and tests between models."""

import asyncio
from typing import TYPE_CHECKING, Any

import click

from loradeck_cli.connection import connection
from loradeck_cli.evaluate.judge import judge
from loradeck_cli.evaluate.offline import compare, loss, score
from loradeck_cli.evaluate.options import (
    TASKS,
    check_result_options,
    data_options,
    finish,
    metric_options,
    result_options,
    settings_of,
)
from loradeck_cli.number import Number

if TYPE_CHECKING:
    from loradeck_bench.evaluation.answers import Metric
    from loradeck_bench.load.plan import Subject


@click.group()
def command() -> None:
    """Measure the quality of models and answers, and test models against each other."""


@command.command()
@connection
@click.option(
    "--server", "address", default="127.0.0.1:8500", show_default=True, metavar="HOST:PORT", help="Server to ask."
)
@click.option("--adapter", metavar="REF", help="Adapter, or the served full checkpoint: name[@revision or alias].")
@click.option("--base", "of_base", is_flag=True, help="Ask the base: same prompt, constrained answer.")
@click.option("--task", type=click.Choice(TASKS), required=True)
@data_options
@click.option("--template", metavar="TEXT", help="generate, base: its message with {field} placeholders.")
@click.option("--concurrency", type=click.IntRange(1, 512), default=16, show_default=True, help="Requests at a time.")
@click.option("--timeout", type=Number(min=0.1), default=120.0, show_default=True, help="Seconds per request.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Limit of an answer [48 short, 192 long, 256 generate].")
@metric_options
@result_options
def run(
    address: str,
    adapter: str | None,
    of_base: bool,
    task: str,
    template: str | None,
    concurrency: int,
    timeout: float,
    max_tokens: int | None,
    metrics: tuple[str, ...],
    **options: Any,
) -> None:
    """Ask a server every row of a data set and score the answers, with 95 % intervals."""
    from rich.console import Console

    check_result_options(options)
    from loradeck_bench.evaluation.metrics import check_models, check_references, choose
    from loradeck_bench.load.plan import Subject
    from loradeck_bench.rows import COLUMNS, label_set, read_sample

    if (adapter is None) == (not of_base):
        raise click.UsageError("give either --adapter REF or --base")
    if task == "classification" and (metrics or options["embedding_model"]):
        raise click.UsageError("--metric and --embedding-model are for answers; a classification has its own report")
    if template is not None and (adapter or task != "generate"):
        raise click.UsageError("--template is for --base and --task generate: an adapter has a template of its own")
    settings = settings_of(options)
    chosen = choose(metrics, settings)
    every, rows, source = read_sample(options["data"], task, options["columns"], options["limit"])
    labels = label_set(every) if task == "classification" else []
    check_references(metrics, settings, [row[COLUMNS[task][-1]] for row in rows])
    check_models(chosen)
    subject = Subject(adapter or "", task, tuple(rows), tuple(labels) if of_base else (), max_tokens, template)
    figures = asyncio.run(_ask_and_score(address, subject, labels, concurrency, timeout, chosen))
    figures["source"] = f"{len(rows)} of {len(every)} rows of {source}"
    who = ", ".join(f"{a['name']}@{a['revision']}" for a in figures["answered_by"])
    title = f"{'base' if of_base else adapter} (answered by {who}), {figures['source']}"
    _show(Console(stderr=options["json_path"] == "-"), figures, title)
    finish(figures, title, options)


async def _ask_and_score(
    address: str, subject: "Subject", labels: list[str], concurrency: int, seconds: float, metrics: "list[Metric]"
) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from loradeck_bench.asking import Asker, connect
    from loradeck_bench.evaluation.run import Evaluation

    async with connect(address, retry=True) as client:
        asker = Asker(client, {subject.adapter: subject}, seconds)
        evaluation = Evaluation(asker, subject.task, subject.rows, subject.adapter, labels)
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("asking", total=len(subject.rows))
            unfinished = await evaluation.run(concurrency, lambda done: progress.update(bar, completed=done))
    figures = evaluation.figures(metrics)
    if unfinished:
        figures["unfinished"] = unfinished
    return figures | {"items": evaluation.items()}


def _show(console: Any, figures: dict[str, Any], title: str) -> None:
    from loradeck_bench.tables import category_table, metrics_table, report_table

    if figures["task"] == "classification":
        rows = figures["report_with_other"] if figures["other"] else figures["report"]
        console.print(report_table(rows, title))
        title = "Metrics"
    console.print(metrics_table(figures, title))
    if "by_category" in figures:
        console.print(category_table(figures))
    errors = "".join(f", {count} x {reason}" for reason, count in figures["errors"].items())
    without = figures.get("without_reference")
    unscored = f", {without} without a reference" if without else ""
    latency = figures["latency_ms"]
    console.print(
        f"{figures['answered']} answered{unscored}, {figures['failed']} failed{errors}; latency p50 "
        f"{latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms; {figures['rows_per_second']:.1f} rows/s",
        highlight=False,
    )


for _command in (score, loss, judge, compare):
    command.add_command(_command)
