"""`loradeck bench load`: load on a running server in a given shape, with churn beside it if wanted."""

import sys
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loradeck_cli.bench.options import (
    POSITIVE,
    read_plan,
    read_session,
    read_subjects,
    run_load_test,
    session_options,
    shape_options,
    subject_options,
)
from loradeck_cli.connection import connection

if TYPE_CHECKING:
    from rich.console import Console

    from loradeck_bench.load.plan import LoadPlan
    from loradeck_bench.load.record import RequestRecord
    from loradeck_bench.load.session import Session


@click.command()
@connection
@subject_options
@shape_options
@session_options
@click.option("--duration", type=POSITIVE, default=30.0, show_default=True, help="Seconds.")
@click.option("--slo", multiple=True, metavar="NAME=MS", help="For goodput: ttft, tpot or latency of a request.")
@click.option("--csv", "csv_path", metavar="PATH", help="Write the figures as one flat table.")
@click.option("--churn", metavar="OPS", help="Meanwhile: publish,move,unload, in turn on each alias that is asked.")
@click.option("--churn-every", type=POSITIVE, default=5.0, show_default=True, help="Seconds between operations.")
@click.option("--admin", metavar="HOST:PORT", help="For --churn: the server's door for operators.")
@click.option("--registry", "url", envvar="LORADECK_REGISTRY", metavar="URL", help="For --churn: its registry.")
def load(duration: float, slo: tuple[str, ...], csv_path: str | None, **options: Any) -> None:
    """Load a server in an open loop (--rate, --rates, --trace) or a closed one (--concurrency)."""
    from rich.console import Console

    from loradeck_bench.load.figures.flat import write_csv
    from loradeck_bench.load.figures.objective import Objective
    from loradeck_bench.output import ensure_writable, open_for_writing, write_json
    from loradeck_bench.tables import load_table

    if options["churn"] and not (options["admin"] and options["url"]):
        raise click.UsageError("--churn needs --admin and --registry")
    console = Console(stderr=options["json_path"] == "-")
    subjects = read_subjects(options)
    plan = read_plan(options, subjects, duration)
    session = read_session(options, subjects, Objective.parse(slo) if slo else None, console)
    json_path, html_path = options["json_path"], options["html_path"]
    ensure_writable(json_path, options["records_path"], html_path, csv_path)
    summary = run_load_test(_load(session, plan, options, console))
    if json_path:
        write_json(summary, json_path)
    if csv_path:
        with open_for_writing(csv_path) as out:
            write_csv(summary, out)
    if html_path:
        from loradeck_bench.report.load_page import write_load_page

        write_load_page({"load": summary}, "Load test", Path(html_path))
    console.print(load_table(summary))
    for line in _remarks(summary):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if summary.get("unfinished"):
        click.echo(f"error: {summary['unfinished']}; the figures are of what was sent", err=True)
        sys.exit(130 if summary["unfinished"].startswith("interrupted") else 1)
    if not summary["ok"]:
        click.echo("error: no request was answered", err=True)
        sys.exit(1)


async def _load(session: "Session", plan: "LoadPlan", options: dict[str, Any], console: "Console") -> dict[str, Any]:
    from loradeck_bench.asking import connect_admin
    from loradeck_bench.load.churn import Churn
    from loradeck_bench.load.live import live_view
    from loradeck_bench.load.record import write_record
    from loradeck_bench.output import open_for_writing
    from loradeck_registry.registry import Registry

    path = options["records_path"]
    async with AsyncExitStack() as stack:
        churn = None
        if options["churn"]:
            operator = await stack.enter_async_context(connect_admin(options["admin"]))
            registry = Registry.open(options["url"])
            churn = Churn.of(registry, operator, list(plan.subjects), options["churn"], options["churn_every"])
        out = stack.enter_context(open_for_writing(path) if path else nullcontext())
        view = stack.enter_context(live_view(console, plan, "Load"))

        def seen(record: "RequestRecord") -> None:
            if out:
                write_record(record, out)
            if view:
                view.seen(record)

        sent = await session.send(plan, seen, churn)
    return session.summary(plan, sent, churn)


def _remarks(summary: dict[str, Any]) -> list[str]:
    """What the table does not say, a line each."""
    lines = ["shares: " + ", ".join(f"{name} {share:.3f}" for name, share in summary["shares"].items())]
    fair = summary["fairness"]
    if fair["worst"] is not None:
        jain = ", ".join(
            f"of {what} {fair[f'jain_{what}']:.3f}"
            for what in ("answered", "slowdown", "attained")
            if fair.get(f"jain_{what}") is not None
        )
        slow = fair["worst"]["slowdown"]
        times = "" if slow is None else f", {slow:.2f} times the mean latency of its task"
        worst = f"{fair['worst']['adapter']} ({fair['worst']['answered']:.1%} answered{times})"
        lines.append(f"fairness (Jain's index): {jain}; worst off: {worst}")
    if "objective" in summary:
        bounds = ", ".join(f"{name} {bound:g} ms" for name, bound in summary["objective"]["bounds_ms"].items())
        lines.append(
            f"goodput: {summary['goodput_per_second']:.2f} requests/s within {bounds} ({summary['attained']:.1%})"
        )
    quality: dict[str, Any] = summary.get("quality") or {}
    for name, figures in quality.get("per_revision", {}).items():
        metric = quality["headline"][figures["task"]]
        low, high = figures["intervals"].get(metric, (None, None))
        bounds = "" if low is None else f", {low:.3f} to {high:.3f}"
        lines.append(f"quality of {name}: {metric} {figures[metric]:.3f}{bounds} ({figures['answers']} answers)")
    lines += [f"{number} failed: {reason}" for reason, number in summary["errors"].items()]
    if summary["cut_off"]:
        lines.append(f"{summary['cut_off']} cut off: under way when the run was broken off")
    if summary["trace"] and summary["trace"]["skipped_rows"]:
        lines.append(f"{summary['trace']['skipped_rows']} bad rows of the trace skipped")
    if churn := summary.get("churn"):
        counts = ", ".join(f"{number} {what}" for what, number in churn["counts"].items()) or "nothing done"
        lines.append(
            f"churn: {counts}, {churn['failed_operations']} failed; {churn['wrong_revision']} of "
            f"{churn['replies_checked']} replies by a wrong revision, {churn['different_answers']} of "
            f"{churn['copies_compared']} of a copy unlike those of the first revision"
        )
    return [*lines, summary["client"]["verdict"]]
