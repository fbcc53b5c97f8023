"""`loradeck bench sweep` and `goodput`: how much load a running server takes, and how much within an objective."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from loradeck_cli.bench.options import (
    POSITIVE,
    read_session,
    read_subjects,
    run_load_test,
    session_options,
    subject_options,
)
from loradeck_cli.connection import connection
from loradeck_cli.number import Number

if TYPE_CHECKING:
    from rich.console import Console

    from loradeck_bench.load.record import RequestRecord
    from loradeck_bench.load.run import Sent
    from loradeck_bench.load.session import Session

FEWEST = 10
"""Requests below which a trial of the search for goodput says nothing."""


@click.command()
@connection
@subject_options
@session_options
@click.option("--start", type=POSITIVE, default=1.0, show_default=True, help="First rate, requests per second.")
@click.option("--factor", type=Number(min=1.01), default=1.5, show_default=True, help="From step to step.")
@click.option("--rates", metavar="A,B,…", help="These rates instead.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Most steps.")
@click.option("--seconds", type=POSITIVE, default=15.0, show_default=True, help="Of a step.")
def sweep(start: float, factor: float, rates: str | None, steps: int, seconds: float, **options: Any) -> None:
    """Raise the rate step by step until the server no longer keeps up."""
    from rich.console import Console

    from loradeck_bench.load.saturation import Step
    from loradeck_bench.load.saturation import sweep as swept

    chosen = _rates(rates) if rates else [start * factor**number for number in range(steps)]
    console = Console(stderr=options["json_path"] == "-")

    def show(step: Step) -> None:
        spread = step.latency_ms or {"p50": float("nan"), "p99": float("nan")}
        console.print(
            f"{step.rate:8.2f}/s: answered {step.answered_per_second:7.2f}/s, {step.waiting} waiting at the end, "
            f"latency p50 {spread['p50']:.0f} ms, p99 {spread['p99']:.0f} ms"
            + (f"; saturated: {step.saturated}" if step.saturated else ""),
            highlight=False, soft_wrap=True,
        )  # fmt: skip

    async def search(trials: _Trials) -> dict[str, Any]:
        return await swept(trials.run, chosen, seconds, options["seed"], show, trials.more)

    result = _run(options, console, seconds, search)
    sustained = result["sustained_rate"]
    held = "keeps up with no step" if sustained is None else f"keeps up with {sustained:g} requests/s"
    end = f"saturated at {result['saturated_rate']:g}" if result["saturated_rate"] else "not saturated by any step"
    console.print(f"{held}, {end}; at most {result['peak_per_second']:.2f} answered per second", highlight=False)
    _write(result, options, "sweep", "Load: step sweep")


@click.command()
@connection
@subject_options
@session_options
@click.option("--slo", multiple=True, required=True, metavar="NAME=MS", help="ttft, tpot or latency of a request.")
@click.option("--attainment", type=Number(0, 1, min_open=True), default=0.95, show_default=True)
@click.option("--start", type=POSITIVE, default=2.0, show_default=True, help="First rate, requests per second.")
@click.option("--precision", type=Number(0.005, 1), default=0.05, show_default=True, help="Of the rate.")
@click.option("--seconds", type=POSITIVE, default=20.0, show_default=True, help="Of a trial.")
def goodput(
    slo: tuple[str, ...], attainment: float, start: float, precision: float, seconds: float, **options: Any
) -> None:
    """Search for the highest rate at which a share of requests (--attainment) keeps every bound (--slo)."""
    from rich.console import Console

    from loradeck_bench.load.figures.objective import Objective
    from loradeck_bench.load.goodput import Tried
    from loradeck_bench.load.goodput import search as searched

    objective = Objective.parse(slo, attainment)
    console = Console(stderr=options["json_path"] == "-")

    def show(tried: Tried) -> None:
        verdict = "holds" if tried.held else "fails"
        console.print(f"{tried.rate:8.2f}/s: {tried.attained:.1%} within the objective: {verdict}", highlight=False)

    async def search(trials: _Trials) -> dict[str, Any]:
        return await searched(
            trials.run, objective, start=start, seed=options["seed"], precision=precision,
            lowest=min(start, FEWEST / seconds), seen=show, more=trials.more,
        )  # fmt: skip

    result = _run(options, console, seconds, search)
    if result["rate"] is not None:
        bound = "" if result["bracketed"] else " or more: no rate failed"
        console.print(f"holds the objective up to {result['rate']:.2f} requests/s{bound}", highlight=False)
    _write(result, options, "goodput", "Load: search for goodput")
    if result["rate"] is None:
        click.echo("error: no rate held the objective; loosen it, or --start lower", err=True)
        sys.exit(1)


def _rates(text: str) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise click.UsageError(f"bad rates {text!r}: use A,B,… above zero")
    return rates


@dataclass
class _Trials:
    """Open loops on a server, one after the other; warm-up comes before the first one only."""

    session: "Session"
    options: dict[str, Any]
    console: "Console"
    seconds: float
    out: TextIO | None
    done: list["Sent"] = field(default_factory=list)

    async def run(self, rate: float, seed: int) -> "Sequence[RequestRecord]":
        """One trial. Raises CancelledError if it was broken off."""
        from loradeck_bench.load.live import live_view
        from loradeck_bench.load.plan import LoadPlan
        from loradeck_bench.load.record import write_record

        number = len(self.done)
        plan = LoadPlan(
            self.session.asking.subjects, self.seconds, rate, arrivals=self.options["arrivals"],
            popularity=self.options["popularity"], seed=seed, warm_up=self.options["warm_up"] if number == 0 else 0,
        )  # fmt: skip
        with live_view(self.console, plan, f"{rate:.2f} requests/s") as view:

            def seen(record: "RequestRecord") -> None:
                if self.out:
                    write_record(record, self.out, trial=number, rate=rate)
                if view:
                    view.seen(record)

            sent = await self.session.send(plan, seen)
        self.done.append(sent)
        if sent.unfinished:
            raise asyncio.CancelledError
        return sent.records

    def more(self, records: "Sequence[RequestRecord]") -> dict[str, Any]:
        """Of the last trial: whether the client was the bottleneck, and the quality of the answers."""
        from loradeck_bench.load.vitals import client_of

        client = client_of(records, self.done[-1].vitals)
        quality = self.session.quality(records).headlines() if self.session.metrics is not None else {}
        return {"client": client, **({"quality": quality} if quality else {})}


def _run(
    options: dict[str, Any],
    console: "Console",
    seconds: float,
    search: Callable[[_Trials], Coroutine[Any, Any, dict[str, Any]]],
) -> dict[str, Any]:
    from loradeck_bench.output import ensure_writable, open_for_writing

    session = read_session(options, read_subjects(options), None, console)
    path = options["records_path"]
    ensure_writable(options["json_path"], path, options["html_path"])
    with open_for_writing(path) if path else nullcontext() as out:
        trials = _Trials(session, options, console, seconds, out)
        result: dict[str, Any] = run_load_test(search(trials))
    gone = [
        sent.unfinished for sent in trials.done if sent.unfinished and not sent.unfinished.startswith("interrupted")
    ]
    if gone:
        result["unfinished"] += f": {gone[0]}"
    verdicts = [entry["client"] for entry in result.get("steps", result.get("trials", ()))]
    if late := [client["verdict"] for client in verdicts if client["bottleneck"]]:
        console.print(f"in {len(late)} of {len(verdicts)} trials {late[-1]}", highlight=False, soft_wrap=True)
    return result


def _write(result: dict[str, Any], options: dict[str, Any], kind: str, title: str) -> None:
    """Write what was asked for; an unfinished result ends the command, after it was written."""
    from loradeck_bench.output import write_json

    if options["json_path"]:
        write_json(result, options["json_path"])
    if options["html_path"]:
        from loradeck_bench.report.load_page import write_load_page

        write_load_page({kind: result}, title, Path(options["html_path"]))
    if unfinished := result.get("unfinished"):
        click.echo(f"error: {unfinished}; what was measured before is kept", err=True)
        sys.exit(1 if "went away" in unfinished else 130)
