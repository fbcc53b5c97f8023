"""`loradeck bench load`: load on a running server in a given shape, and the options that all loads share."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from loradeck_bench.load.plan import LoadPlan, Subject

TASKS = ("classification", "short_qa", "long_qa", "generate")
POSITIVE = click.FloatRange(min=0, min_open=True)
Command = Callable[..., None]


def subject_options(function: Command) -> Command:
    """Whom to ask for what, and how requests are spread; `read_subjects` reads the first part."""
    for option in (
        click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for stdout."),
        click.option("--timeout", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Seconds."),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Limit of an answer [48 short, 192 long]."),
        click.option(
            "--warm-up", type=click.IntRange(min=0), default=1, show_default=True, help="Unmeasured requests to each."
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Of arrivals and choices."),
        click.option(
            "--popularity", default="uniform", show_default=True,
            help="uniform, round_robin, zipf:S, geometric:A, power:A, weights:W1,W2,…|FILE.json, drift:SECONDS:LAW.",
        ),
        click.option("--arrivals", default="poisson", show_default=True, help="poisson, constant or gamma:CV."),
        click.option("--data", metavar="PATH", help="Rows to send [default: the task's own test set]."),
        click.option("--task", type=click.Choice(TASKS), help="Task of the base, and of adapters that name none."),
        click.option("--base", "with_base", is_flag=True, help="Ask the base too, with --task."),
        click.option("--adapter", "adapters", multiple=True, metavar="REF[=TASK]", help="Adapter to ask; repeat."),
        click.option("--server", "address", default="127.0.0.1:8500", show_default=True, metavar="HOST:PORT"),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command()
@subject_options
@click.option("--rate", type=POSITIVE, help="Open loop: requests per second.")
@click.option("--rates", metavar="A:B or A,B,…", help="Open loop: a ramp from A to B, or steps of equal length.")
@click.option("--trace", type=click.Path(path_type=Path), help="Open loop: replay a CSV trace of Azure's form.")
@click.option("--speed", type=POSITIVE, default=1.0, show_default=True, help="Replay so many times as fast.")
@click.option("--token-scale", type=POSITIVE, default=1.0, show_default=True, help="Answers so many times as long.")
@click.option("--concurrency", type=click.IntRange(1, 4096), help="Closed loop: requests under way at a time.")
@click.option("--duration", type=POSITIVE, default=30.0, show_default=True, help="Seconds.")
@click.option("--max-in-flight", type=click.IntRange(min=1), help="Open loop: a client pool of this size.")
@click.option("--records", "records_path", metavar="PATH", help="One line of JSON per request, as they end.")
@click.option("--html", "html_path", metavar="PATH", help="Write a self-contained page.")
def load(
    rate: float | None,
    rates: str | None,
    trace: Path | None,
    speed: float,
    token_scale: float,
    concurrency: int | None,
    duration: float,
    max_in_flight: int | None,
    records_path: str | None,
    html_path: str | None,
    **options: Any,
) -> None:
    """Load a server in an open loop (--rate, --rates, --trace) or a closed one (--concurrency)."""
    from rich.console import Console

    from loradeck_bench.extra import PAGES, require
    from loradeck_bench.load.plan import LoadPlan
    from loradeck_bench.load.run import describe
    from loradeck_bench.load.shape.profile import RateProfile
    from loradeck_bench.load.shape.trace import read_trace
    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.tables import load_table

    if sum(shape is not None for shape in (rate, rates, trace, concurrency)) != 1:
        raise click.UsageError("give one of --rate, --rates, --trace and --concurrency")
    subjects = read_subjects(options)
    if html_path:
        require(PAGES)
    json_path = options["json_path"]
    ensure_writable(json_path, records_path, html_path)
    plan = LoadPlan(
        subjects,
        duration,
        rate,
        concurrency,
        RateProfile.parse(rates, duration) if rates is not None else None,
        read_trace(trace, speed, token_scale) if trace is not None else None,
        options["arrivals"],
        options["popularity"],
        options["seed"],
        max_in_flight,
        options["warm_up"],
    )
    console = Console(stderr=json_path == "-")
    summary = asyncio.run(_load(options["address"], plan, options["timeout"], records_path))
    summary["description"] = describe(summary)
    if json_path:
        write_json(summary, json_path)
    if html_path:
        _page(summary, Path(html_path))
    console.print(load_table(summary))
    shares = ", ".join(f"{name} {share:.3f}" for name, share in summary["shares"].items())
    console.print(f"shares: {shares}", highlight=False)
    for reason, number in summary["errors"].items():
        console.print(f"{number} failed: {reason}", highlight=False)
    if summary["trace"] and summary["trace"]["skipped_rows"]:
        console.print(f"{summary['trace']['skipped_rows']} bad rows of the trace skipped", highlight=False)
    if summary["client_was_busy"]:
        console.print("this client was late (delay p99 above 20 ms): it may be the bottleneck, not the server")
    if summary.get("unfinished"):
        click.echo(f"error: {summary['unfinished']}; the figures are of what was sent", err=True)
        sys.exit(130)


def read_subjects(options: dict[str, Any]) -> "dict[str, Subject]":
    """Whom `subject_options` name, with their rows. Raises UsageError without anybody."""
    from loradeck_bench.load.subjects import subjects

    if not options["adapters"] and not options["with_base"]:
        raise click.UsageError("name at least one --adapter, or --base")
    asked = [*options["adapters"], *([""] if options["with_base"] else [])]
    return subjects(asked, options["task"], options["data"], options["max_tokens"])


async def _load(address: str, plan: "LoadPlan", seconds: float, records_path: str | None) -> dict[str, Any]:
    from contextlib import nullcontext

    from loradeck_bench.asking import Asker, connect
    from loradeck_bench.load.record import write_record
    from loradeck_bench.load.run import run_load
    from loradeck_bench.output import open_for_writing

    async with connect(address) as client:
        with open_for_writing(records_path) if records_path else nullcontext() as out:
            summary, _ = await run_load(
                Asker(client, plan.subjects, seconds),
                plan,
                (lambda record: write_record(record, out)) if out else (lambda record: None),
            )
    return summary


def _page(summary: dict[str, Any], path: Path) -> None:
    from datetime import datetime

    from loradeck_bench.machine import machine, versions
    from loradeck_bench.report.html import render

    report = {
        "title": "loradeck load test",
        "created": f"{datetime.now():%Y-%m-%d %H:%M}",
        "machine": machine(),
        "versions": versions(),
        "load": summary,
    }
    path.write_text(render(report), encoding="utf-8")
