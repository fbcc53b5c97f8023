"""`loradeck bench sweep` and `goodput`: how much load a running server takes, and how much within an objective."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import click

from loradeck_cli.bench_load import POSITIVE, read_subjects, subject_options

if TYPE_CHECKING:
    from loradeck_bench.load.record import RequestRecord
    from loradeck_bench.load.saturation import Trial

FEWEST = 10
"""Requests below which a trial of the search for goodput says nothing."""


@click.command()
@subject_options
@click.option("--start", type=POSITIVE, default=1.0, show_default=True, help="First rate, requests per second.")
@click.option("--factor", type=click.FloatRange(min=1.01), default=1.5, show_default=True, help="From step to step.")
@click.option("--rates", metavar="A,B,…", help="These rates instead.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Most steps.")
@click.option("--seconds", type=POSITIVE, default=15.0, show_default=True, help="Of a step.")
def sweep(start: float, factor: float, rates: str | None, steps: int, seconds: float, **options: Any) -> None:
    """Raise the rate step by step until the server no longer keeps up."""
    from rich.console import Console

    from loradeck_bench.load.saturation import Step
    from loradeck_bench.load.saturation import sweep as swept
    from loradeck_bench.output import ensure_writable, write_json

    ensure_writable(options["json_path"])
    chosen = _rates(rates) if rates else [start * factor**number for number in range(steps)]
    console = Console(stderr=options["json_path"] == "-")

    def show(step: Step) -> None:
        spread = step.latency_ms or {"p50": float("nan"), "p99": float("nan")}
        console.print(
            f"{step.rate:8.2f}/s: answered {step.answered_per_second:7.2f}/s, {step.waiting} waiting at the end, "
            f"latency p50 {spread['p50']:.0f} ms, p99 {spread['p99']:.0f} ms"
            + (f"; saturated: {step.saturated}" if step.saturated else ""),
            highlight=False,
        )

    async def run(trial: "Trial") -> dict[str, Any]:
        return await swept(trial, chosen, seconds, options["seed"], show)

    result = asyncio.run(_trials(options, seconds, run))
    sustained = result["sustained_rate"]
    held = "keeps up with no step" if sustained is None else f"keeps up with {sustained:g} requests/s"
    end = f"saturated at {result['saturated_rate']:g}" if result["saturated_rate"] else "not saturated by any step"
    console.print(f"{held}, {end}; at most {result['peak_per_second']:.2f} answered per second", highlight=False)
    if options["json_path"]:
        write_json(result, options["json_path"])
    _stop_if_unfinished(result)


@click.command()
@subject_options
@click.option("--slo", multiple=True, required=True, metavar="NAME=MS", help="ttft, tpot or latency of a request.")
@click.option("--attainment", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True)
@click.option("--start", type=POSITIVE, default=2.0, show_default=True, help="First rate, requests per second.")
@click.option("--precision", type=click.FloatRange(0.005, 1), default=0.05, show_default=True, help="Of the rate.")
@click.option("--seconds", type=POSITIVE, default=20.0, show_default=True, help="Of a trial.")
def goodput(
    slo: tuple[str, ...], attainment: float, start: float, precision: float, seconds: float, **options: Any
) -> None:
    """Search for the highest rate at which a share of requests (--attainment) keeps every bound (--slo)."""
    from rich.console import Console

    from loradeck_bench.load.figures.objective import Objective
    from loradeck_bench.load.goodput import Tried, search
    from loradeck_bench.output import ensure_writable, write_json

    ensure_writable(options["json_path"])
    objective = Objective.parse(slo, attainment)
    console = Console(stderr=options["json_path"] == "-")

    def show(tried: Tried) -> None:
        verdict = "holds" if tried.held else "fails"
        console.print(f"{tried.rate:8.2f}/s: {tried.attained:.1%} within the objective: {verdict}", highlight=False)

    async def run(trial: "Trial") -> dict[str, Any]:
        return await search(
            trial, objective, start=start, seed=options["seed"], precision=precision,
            lowest=min(start, FEWEST / seconds), seen=show,
        )  # fmt: skip

    result = asyncio.run(_trials(options, seconds, run))
    if options["json_path"]:
        write_json(result, options["json_path"])
    _stop_if_unfinished(result)
    if result["rate"] is None:
        click.echo("error: no rate held the objective; loosen it, or --start lower", err=True)
        sys.exit(1)
    bound = "" if result["bracketed"] else " or more: no rate failed"
    console.print(f"holds the objective up to {result['rate']:.2f} requests/s{bound}", highlight=False)


def _stop_if_unfinished(result: dict[str, Any]) -> None:
    if result.get("unfinished"):
        click.echo(f"error: {result['unfinished']}; what was measured before is kept", err=True)
        sys.exit(130)


def _rates(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(f"bad rates {text!r}: use A,B,…") from None


async def _trials(options: dict[str, Any], seconds: float, run: Callable[["Trial"], Any]) -> dict[str, Any]:
    """Runs `run` with a trial that loads the server at a rate; warm-up comes before the first one only."""
    from loradeck_bench.asking import Asker, connect
    from loradeck_bench.load.plan import LoadPlan
    from loradeck_bench.load.run import run_load

    subjects = read_subjects(options)
    number = count()
    async with connect(options["address"]) as client:
        asker = Asker(client, subjects, options["timeout"])

        async def trial(rate: float, seed: int) -> "Sequence[RequestRecord]":
            plan = LoadPlan(
                subjects, seconds, rate, arrivals=options["arrivals"], popularity=options["popularity"], seed=seed,
                warm_up=options["warm_up"] if next(number) == 0 else 0,
            )  # fmt: skip
            summary, records = await run_load(asker, plan)
            if summary.get("unfinished"):
                raise asyncio.CancelledError
            return records

        result: dict[str, Any] = await run(trial)
        return result
