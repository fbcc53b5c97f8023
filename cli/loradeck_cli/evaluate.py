"""`loradeck eval`: the quality of a served adapter or base, measured over gRPC."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from loradeck_bench.load.plan import Subject

TASKS = ("classification", "short_qa", "long_qa")


@click.group()
def command() -> None:
    """Measure the quality of a served adapter or base."""


@command.command()
@click.option(
    "--server", "address", default="127.0.0.1:8500", show_default=True, metavar="HOST:PORT", help="Server to ask."
)
@click.option("--adapter", metavar="REF", help="Adapter, or the served full checkpoint: name[@revision or alias].")
@click.option("--base", "of_base", is_flag=True, help="Ask the base: same prompt, constrained answer.")
@click.option("--task", type=click.Choice(TASKS), required=True)
@click.option("--data", metavar="PATH", help="JSONL, CSV, Parquet, pocket:classification or pocket:qa (the default).")
@click.option("--column", "columns", multiple=True, metavar="FIELD=COLUMN[:PATTERN]", help="Where a field comes from.")
@click.option("--limit", type=click.IntRange(min=1), help="A sample of so many rows, stratified by label, seed 0.")
@click.option("--concurrency", type=click.IntRange(1, 512), default=16, show_default=True, help="Requests at a time.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Seconds per request."
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="Limit of an answer [default: 48 short, 192 long].")
@click.option("--embedding-model", type=click.Path(path_type=Path), help="Local folder for BERTScore and similarity.")
@click.option(
    "--json", "json_path", metavar="PATH", help="Write figures and every answer as JSON; - for standard output."
)
def run(
    address: str,
    adapter: str | None,
    of_base: bool,
    task: str,
    data: str | None,
    columns: tuple[str, ...],
    limit: int | None,
    concurrency: int,
    timeout: float,
    max_tokens: int | None,
    embedding_model: Path | None,
    json_path: str | None,
) -> None:
    """Ask every row of a data set and score the answers, with 95 % intervals."""
    from rich.console import Console

    from loradeck_bench.extra import METRICS, require

    require(METRICS)
    from loradeck_bench.columns import parse_columns
    from loradeck_bench.evaluation.run import embedding_extras, label_set
    from loradeck_bench.load.plan import Subject
    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.rows import COLUMNS, DEFAULT_DATA, read_rows, sample

    if (adapter is None) == (not of_base):
        raise click.UsageError("give either --adapter REF or --base")
    if embedding_model and task == "classification":
        raise click.UsageError("--embedding-model belongs to the question-answering tasks")
    ensure_writable(json_path)
    source = data or DEFAULT_DATA[task]
    extras = embedding_extras(embedding_model)
    every = read_rows(source, task, columns=parse_columns(columns, COLUMNS[task]))
    labels = label_set(every) if task == "classification" else []
    rows = sample(every, limit, by="label" if labels else None)
    subject = Subject(adapter or "", task, tuple(rows), tuple(labels) if of_base else (), max_tokens)
    figures, items = asyncio.run(_ask_and_score(address, subject, labels, concurrency, timeout, extras))
    figures["source"] = f"{len(rows)} of {len(every)} rows of {source}"
    _show(Console(stderr=json_path == "-"), figures, of_base, adapter)
    if json_path:
        write_json({**figures, "items": items}, json_path)
    if figures.get("unfinished"):
        click.echo(f"error: {figures['unfinished']}; the figures are of the rows that were answered", err=True)
        sys.exit(130 if figures["unfinished"].startswith("interrupted") else 1)


async def _ask_and_score(
    address: str, subject: "Subject", labels: list[str], concurrency: int, seconds: float, extras: list[Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
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
    figures = evaluation.figures(extras)
    if unfinished:
        figures["unfinished"] = unfinished
    return figures, evaluation.items()


def _show(console: Any, figures: dict[str, Any], of_base: bool, adapter: str | None) -> None:
    from loradeck_bench.tables import metrics_table, report_table

    who = ", ".join(f"{a['name']}@{a['revision']}" for a in figures["answered_by"])
    title = f"{'base' if of_base else adapter} (answered by {who}), {figures['source']}"
    if figures["task"] == "classification":
        rows = figures["report_with_other"] if figures["other"] else figures["report"]
        console.print(report_table(rows, title))
        title = "Metrics"
    console.print(metrics_table(figures, title))
    errors = "".join(f", {count} x {reason}" for reason, count in figures["errors"].items())
    latency = figures["latency_ms"]
    console.print(
        f"{figures['answered']} answered, {figures['failed']} failed{errors}; latency p50 {latency['p50']:.0f} ms, "
        f"p99 {latency['p99']:.0f} ms; {figures['rows_per_second']:.1f} rows/s",
        highlight=False,
    )
