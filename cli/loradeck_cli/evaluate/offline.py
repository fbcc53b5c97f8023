"""`loradeck eval score`, `loss` and `compare`: what needs no server."""

from pathlib import Path
from typing import Any

import click

from loradeck_cli.evaluate.options import (
    TASKS,
    check_result_options,
    data_options,
    finish,
    metric_options,
    result_options,
    settings_of,
)


@click.command()
@data_options
@click.option("--name", default="answers", show_default=True, help="What the answers are of.")
@metric_options
@result_options
def score(name: str, metrics: tuple[str, ...], **options: Any) -> None:
    """Score answers that are there already: columns `answer` and `reference`."""
    from rich.console import Console

    check_result_options(options)
    from loradeck_bench.evaluation.metrics import choose
    from loradeck_bench.evaluation.offline import score_rows
    from loradeck_bench.tables import metrics_table

    if options["data"] is None:
        raise click.UsageError("--data is needed: the file with the answers")
    result = score_rows(
        options["data"], options["columns"], options["limit"], name, choose(metrics, settings_of(options))
    )
    title = f"{name}, {result['source']}"
    Console(stderr=options["json_path"] == "-").print(metrics_table(result, title))
    finish(result, title, options)


@click.command()
@click.option("--adapter", metavar="REF", help="Adapter or full checkpoint in the registry.")
@click.option("--base", metavar="REF", help="Base: name, hub:org/name or dir:folder [default: the adapter's].")
@click.option("--task", type=click.Choice(TASKS), required=True)
@data_options
@click.option(
    "--over", type=click.Choice(("answer", "all")), default="answer", show_default=True, help="Scored tokens."
)
@click.option("--dtype", type=click.Choice(("float32", "bfloat16")), default="float32", show_default=True)
@click.option("--max-length", type=click.IntRange(min=2), help="Leave out rows of more tokens [default: the context].")
@result_options
def loss(
    adapter: str | None, base: str | None, task: str, over: str, dtype: str, max_length: int | None, **options: Any
) -> None:
    """Loss, perplexity per token and byte, bits and token accuracy of the references, computed in this process."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    check_result_options(options)
    from loradeck_bench.extra import TRAINING, require

    require(TRAINING)
    from loradeck_bench.evaluation.likelihood.measure import measure
    from loradeck_bench.evaluation.likelihood.model import load
    from loradeck_bench.rows import label_set, read_sample
    from loradeck_bench.tables import metrics_table
    from loradeck_registry.registry import Registry

    every, rows, source = read_sample(options["data"], task, options["columns"], options["limit"])
    labels = label_set(every) if task == "classification" else []
    registry = Registry.open(options["registry_url"]) if options["registry_url"] else None
    loaded = load(adapter, base, task, labels, registry, dtype)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("computing", total=len(rows))
        result = measure(
            rows,
            loaded,
            whole=over == "all",
            max_length=max_length,
            progress=lambda done: progress.update(bar, completed=done),
        )
    result["source"] = f"{len(rows)} of {len(every)} rows of {source}"
    title = f"{result['adapter']}, {result['source']}"
    console = Console(stderr=options["json_path"] == "-")
    console.print(metrics_table(result, title))
    console.print(
        f"{result['scored_tokens']} tokens scored, {result['too_long']} rows too long, "
        f"{result['without_reference']} without a reference; {result['tokens_per_second']:.0f} tokens/s",
        highlight=False,
    )
    finish(result, title, options)


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FIRST.json SECOND.json …")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Only this metric; may be repeated.")
@click.option("--json", "json_path", metavar="PATH", help="Write the tests as JSON; - for standard output.")
def compare(results: tuple[Path, ...], metrics: tuple[str, ...], json_path: str | None) -> None:
    """Test results of `eval … --json` on the same rows: the first model against each of the others."""
    from rich.console import Console

    from loradeck_bench.extra import METRICS, require

    require(METRICS)
    from loradeck_bench.evaluation.paired.compare import compare as tested
    from loradeck_bench.evaluation.paired.results import read_result
    from loradeck_bench.evaluation.paired.table import comparison_tables, verdict_line
    from loradeck_bench.output import ensure_writable, write_json

    if len(results) < 2:
        raise click.UsageError("give two results or more")
    ensure_writable(json_path)
    names = [path.stem for path in results]
    if len(set(names)) < len(names):
        names = [str(path) for path in results]
    outcome = tested([read_result(path) for path in results], names, metrics)
    console = Console(stderr=json_path == "-")
    for table in comparison_tables(outcome):
        console.print(table)
    notes = [f"note: {note}" for note in outcome["notes"]]
    for line in [*map(verdict_line, outcome["comparisons"]), *notes, f"tests: {outcome['method']}"]:
        console.print(line, highlight=False)
    if json_path:
        write_json(outcome, json_path)
