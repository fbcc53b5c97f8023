"""Runs a load test: warm-up, the load itself, and its summary."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.figures.over_time import over_time
from loradeck_bench.load.figures.summary import summarise
from loradeck_bench.load.generator import Ask, LoadRun
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.vitals import Vitals, client_of, watched


@dataclass(frozen=True)
class Sent:
    """What came of sending a plan: records in the order in which they ended, vitals of each client process, and why it
    was broken off, if it was."""

    records: list[RequestRecord]
    vitals: list[Vitals]
    unfinished: str | None = None


async def warm_up(ask: Ask, plan: LoadPlan) -> None:
    """Send `plan.warm_up` requests to each subject, one after the other. Errors are raised, so that an unreachable
    server or an unknown adapter is told before anything is measured."""
    for adapter, subject in plan.subjects.items():
        for index in range(plan.warm_up):
            record = RequestRecord(index, adapter, subject.task, index % len(subject.rows), 0.0)
            await ask(record, lambda: 0.0)


Beside = Callable[[Callable[[], float]], Awaitable[None]]
"""What goes on while a load runs, until it is cancelled at its end; it gets the run's clock."""


@asynccontextmanager
async def alongside(beside: Beside | None, begin: float) -> AsyncIterator[None]:
    """Have `beside` go on while the block runs; the run's clock starts at `begin` on `time.monotonic`."""
    if beside is None:
        yield
        return
    going = asyncio.ensure_future(beside(lambda: time.monotonic() - begin))
    try:
        yield
    finally:
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)


def schedule_of(plan: LoadPlan, part: int = 0, parts: int = 1) -> list[RequestRecord]:
    """Every `parts`-th request of an open loop from the `part`-th on; nothing of a closed one."""
    return plan.scheduled()[part::parts] if plan.concurrency is None else []


async def send(
    ask: Ask,
    plan: LoadPlan,
    on_record: Callable[[RequestRecord], None] = lambda record: None,
    *,
    beside: Beside | None = None,
    planned: Sequence[RequestRecord] | None = None,
    begin: float | None = None,
    part: int = 0,
    parts: int = 1,
) -> Sent:
    """Send `plan` without warm-up from this process, or the `part`-th of `parts` equal parts of it.

    `planned` is that part of an open loop's schedule (`schedule_of`), where it was made before. The clock starts at
    `begin` on `time.monotonic` (now, if None). A cancelled run returns what it measured.
    """
    schedule = schedule_of(plan, part, parts) if planned is None else planned
    begin = time.monotonic() if begin is None else begin
    run = LoadRun(ask, on_record, started=begin)
    unfinished: str | None = None
    async with watched() as vitals, alongside(beside, begin):
        try:
            if plan.concurrency is None:
                limit = _share(plan.max_in_flight, part, parts)
                await run.open_loop(schedule, max_in_flight=limit, begin=begin)
            else:
                requests = islice(plan.requests(run.now), part, None, parts)
                concurrency = _share(plan.concurrency, part, parts) or 1
                await run.closed_loop(requests, concurrency=concurrency, duration=plan.duration, begin=begin)
        except asyncio.CancelledError:
            unfinished = f"interrupted after {max(0.0, run.now()):.1f} of {plan.duration:g} s"
    if run.gone_after is not None:
        unfinished = f"the server went away after {run.gone_after:.1f} of {plan.duration:g} s"
    return Sent(run.records, [vitals], unfinished)


def _share(whole: int | None, part: int, parts: int) -> int | None:
    """The `part`-th of `parts` nearly equal shares, at least 1."""
    return None if whole is None else max(1, whole // parts + (part < whole % parts))


async def run_load(
    ask: Ask,
    plan: LoadPlan,
    on_record: Callable[[RequestRecord], None] = lambda record: None,
    objective: Objective | None = None,
) -> tuple[dict[str, Any], list[RequestRecord]]:
    """Warm up and send `plan` from this process; returns the summary in the form of report files, and the records.

    A cancelled run returns what it measured, with `unfinished` in the summary.
    """
    await warm_up(ask, plan)
    sent = await send(ask, plan, on_record)
    return summary_of(plan, sent, objective), sent.records


def summary_of(plan: LoadPlan, sent: Sent, objective: Objective | None = None) -> dict[str, Any]:
    """All figures of what was sent, in the form of report files."""
    summary: dict[str, Any] = {**plan.describe(), **summarise(sent.records, objective)}
    summary["over_time"] = over_time(sent.records, plan.duration, objective=objective)
    summary["client"] = client_of(sent.records, sent.vitals, limited=plan.max_in_flight is not None)
    if sent.unfinished:
        summary["unfinished"] = sent.unfinished
    summary["description"] = describe(summary)
    return summary


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
