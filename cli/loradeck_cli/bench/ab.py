"""`loradeck bench ab`: two servers or settings under the same load in turn, and which of them is better."""

import asyncio
import sys
from contextlib import nullcontext
from dataclasses import replace
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
    from collections.abc import Sequence

    from rich.console import Console

    from loradeck_bench.load.paired import Measure
    from loradeck_bench.load.plan import LoadPlan
    from loradeck_bench.load.record import RequestRecord
    from loradeck_bench.load.session import Session


@click.command()
@connection
@subject_options
@shape_options
@session_options
@click.option("--against", metavar="HOST:PORT", help="Server of side b [default: the same].")
@click.option(
    "--against-adapter", "others", multiple=True, metavar="REF[=TASK]", help="Adapters of side b, in the same order."
)
@click.option("--alternations", type=click.IntRange(1), default=9, show_default=True, help="Fewer than 9: no verdict.")
@click.option("--seconds", type=POSITIVE, default=10.0, show_default=True, help="Of each side in each alternation.")
@click.option("--slo", multiple=True, metavar="NAME=MS", help="For goodput: ttft, tpot or latency of a request.")
def ab(
    against: str | None,
    others: tuple[str, ...],
    alternations: int,
    seconds: float,
    slo: tuple[str, ...],
    **options: Any,
) -> None:
    """Load side a (--server, --adapter) and side b (--against, --against-adapter) with one schedule in turn.

    Every alternation has a schedule of its own, which both sides get; they take turns in going first. What differs is
    said with its 95 % interval over alternations.
    """
    from rich.console import Console

    from loradeck_bench.load.figures.objective import Objective
    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.tables import paired_table

    if others and len(others) != len(options["adapters"]):
        raise click.UsageError("give as many --against-adapter as --adapter: both sides get the same schedule")
    console = Console(stderr=options["json_path"] == "-")
    objective = Objective.parse(slo) if slo else None
    second = {**options, "address": against or options["address"], "adapters": others or options["adapters"]}
    sides = {}
    for side, given in (("a", options), ("b", second)):
        subjects = read_subjects(given)
        sides[side] = read_session(given, subjects, objective, console), read_plan(given, subjects, seconds)
    ensure_writable(options["json_path"], options["records_path"], options["html_path"])
    result = run_load_test(_compare(sides, alternations, options, console))
    result["sides"] = {
        side: {"server": session.asking.address, **plan.describe()} for side, (session, plan) in sides.items()
    }
    if options["json_path"]:
        write_json(result, options["json_path"])
    if options["html_path"]:
        from loradeck_bench.report.load_page import write_load_page

        write_load_page({"ab": result}, "Load: a against b", Path(options["html_path"]))
    console.print(paired_table(result))
    if result.get("unfinished"):
        click.echo(f"error: {result['unfinished']}; what was measured before is kept", err=True)
        sys.exit(1 if "went away" in result["unfinished"] else 130)


async def _compare(
    sides: "dict[str, tuple[Session, LoadPlan]]", rounds: int, options: dict[str, Any], console: "Console"
) -> dict[str, Any]:
    from loradeck_bench.load.live import live_view
    from loradeck_bench.load.paired import compare
    from loradeck_bench.load.record import write_record
    from loradeck_bench.load.run import warm_up
    from loradeck_bench.load.vitals import client_of
    from loradeck_bench.output import open_for_writing

    path = options["records_path"]
    clients: list[dict[str, Any]] = []
    broken: list[str] = []
    for session, plan in sides.values():  # neither side is measured if the other cannot be
        async with session.asking.opened() as ask:
            await warm_up(ask, plan)
    with open_for_writing(path) if path else nullcontext() as out:

        async def block(side: str, seed: int) -> "Sequence[RequestRecord]":
            session, plan = sides[side]
            plan = replace(plan, seed=seed)
            with live_view(console, plan, f"side {side}, schedule {seed}") as view:

                def seen(record: "RequestRecord") -> None:
                    if out:
                        write_record(record, out, side=side, schedule=seed)
                    if view:
                        view.seen(record)

                sent = await session.send(plan, seen)
            clients.append(client_of(sent.records, sent.vitals, limited=plan.max_in_flight is not None))
            if sent.unfinished:
                broken.append(f"side {side}: {sent.unfinished}")
                raise asyncio.CancelledError
            return sent.records

        def show(number: int, side: str, figures: "dict[Measure, float]") -> None:
            values = {measure.name: value for measure, value in figures.items()}
            latency = values.get("latency_ms.p50")
            console.print(
                f"{number + 1} of {rounds}, side {side}: {values['requests_per_second']:.2f} requests/s, latency p50 "
                f"{'–' if latency is None else f'{latency:.1f} ms'}, failed {values['failed_share']:.1%}",
                highlight=False,
            )

        sessions = {side: session for side, (session, _) in sides.items()}
        result = await compare(block, sessions, rounds=rounds, seed=options["seed"], seen=show)
    if broken:
        result["unfinished"] += f": {broken[0]}"
    late = [client["verdict"] for client in clients if client["bottleneck"]]
    result["client"] = {
        "bottleneck": bool(late),
        "verdict": f"in {len(late)} of {len(clients)} blocks {late[-1]}" if late else clients[-1]["verdict"],
    } if clients else None  # fmt: skip
    return result
