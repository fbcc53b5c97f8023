"""Runs a load test: warm-up, the load itself, and its summary."""

import asyncio
from collections.abc import Callable
from typing import Any

from loradeck_bench.load.figures.over_time import over_time
from loradeck_bench.load.figures.summary import summarise
from loradeck_bench.load.generator import Ask, LoadRun
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.record import RequestRecord

BUSY_CLIENT_MS = 20.0
"""A client delay p99 above this says that the client, not the server, may be what was measured."""


async def warm_up(ask: Ask, plan: LoadPlan) -> None:
    """Send `plan.warm_up` requests to each subject, one after the other. Errors are raised, so that an unreachable
    server or an unknown adapter is told before anything is measured."""
    for adapter, subject in plan.subjects.items():
        for index in range(plan.warm_up):
            record = RequestRecord(index, adapter, subject.task, index % len(subject.rows), 0.0)
            await ask(record, lambda: 0.0)


async def run_load(
    ask: Ask, plan: LoadPlan, on_record: Callable[[RequestRecord], None] = lambda record: None
) -> tuple[dict[str, Any], list[RequestRecord]]:
    """Run `plan`; returns the summary in the form of report files, and the records.

    A cancelled run returns what it measured, with `unfinished` in the summary.
    """
    await warm_up(ask, plan)
    run = LoadRun(ask, on_record)
    unfinished: str | None = None
    try:
        if plan.concurrency is None:
            await run.open_loop(plan.scheduled(), max_in_flight=plan.max_in_flight)
        else:
            await run.closed_loop(plan.requests(run.now), concurrency=plan.concurrency, duration=plan.duration)
    except asyncio.CancelledError:
        unfinished = f"interrupted after {run.now():.1f} of {plan.duration:g} s"
    summary: dict[str, Any] = {**plan.describe(), **summarise(run.records)}
    summary["over_time"] = over_time(run.records, plan.duration)
    delay = summary["schedule_delay_ms"]
    summary["client_was_busy"] = bool(delay and plan.max_in_flight is None and delay["p99"] > BUSY_CLIENT_MS)
    if unfinished:
        summary["unfinished"] = unfinished
    return summary, run.records


def describe(summary: dict[str, Any]) -> str:
    """The kind of load in one sentence."""
    if summary["mode"] == "open":
        head = f"Open loop, {_shape(summary)} for {summary['duration_seconds']:g} s"
    else:
        head = f"Closed loop, {summary['concurrency']} at a time for {summary['duration_seconds']:g} s"
    return f"{head}, popularity {summary['popularity']}, seed {summary['seed']}."


def _shape(summary: dict[str, Any]) -> str:
    if summary["trace"]:
        trace = summary["trace"]
        skipped = f", {trace['skipped_rows']} bad rows skipped" if trace["skipped_rows"] else ""
        return f"the trace {trace['source']} at {trace['speed']:g} times its speed{skipped}"
    law = {"poisson": "Poisson arrivals", "constant": "even arrivals"}.get(summary["arrivals"], summary["arrivals"])
    if summary["rates"]:
        return f"{law}, rates {summary['rates']} requests/s"
    return f"{law}, {summary['rate']:g} requests/s"
