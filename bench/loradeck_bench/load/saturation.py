"""Step sweep: raise the rate until the server no longer keeps up, and say by which sign that was seen."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.record import RequestRecord
from loradeck_registry.errors import InvalidError

KEEPS_UP = 0.9
"""A server keeps up if it answers at least this share of what comes in the second half of a step."""
REFUSES = 0.05
"""A server that fails more than this share of requests is past what it takes."""
FEWEST = 20
"""Requests in the second half of a step below which nothing is concluded."""

Trial = Callable[[float, int], Awaitable[Sequence[RequestRecord]]]
"""Runs an open loop at a rate, with a seed, and returns the records of all its requests."""


@dataclass(frozen=True)
class Step:
    """One rate. Rates are per second of the step; `waiting` is how many requests were unanswered at its end."""

    rate: float
    requests: int
    failed: int
    answered_per_second: float
    waiting: int
    latency_ms: dict[str, Any] | None
    ttft_ms: dict[str, Any] | None
    tpot_ms: dict[str, Any] | None
    output_tokens_per_second: float
    errors: dict[str, int]
    saturated: str
    """Why the server counts as saturated; empty if it does not."""


def judge_step(records: Sequence[RequestRecord], rate: float, seconds: float) -> Step:
    """What a step of `seconds` shows. All times count from its start."""
    answered = [record for record in records if record.ok]
    failed = len(records) - len(answered)
    half = _waiting(records, seconds / 2), _waiting(records, seconds)
    came = sum(record.intended > seconds / 2 for record in records)
    left = max(0, half[1] - half[0])
    reason = ""
    if failed > REFUSES * len(records):
        reason = f"{failed} of {len(records)} requests failed"
    elif came >= FEWEST and left > (1 - KEEPS_UP) * came:
        reason = f"the queue grew by {left} while {came} requests came"
    ended = sum(record.end is not None and record.end <= seconds for record in answered)
    return Step(
        rate,
        len(records),
        failed,
        ended / seconds,
        half[1],
        spread(record.latency for record in answered),
        spread(record.ttft for record in answered),
        spread(record.tpot for record in answered),
        sum(record.output_tokens for record in answered if record.end is not None and record.end <= seconds) / seconds,
        dict(Counter(record.reason or record.status for record in records if not record.ok)),
        reason,
    )


async def sweep(
    trial: Trial,
    rates: Sequence[float],
    seconds: float,
    seed: int,
    seen: Callable[[Step], None] = lambda step: None,
    more: Callable[[Sequence[RequestRecord]], Mapping[str, Any]] = lambda records: {},
) -> dict[str, Any]:
    """Steps through rising `rates` up to the first that saturates the server; `seen` gets each as it ends, and `more`
    adds to what is said of it.

    `sustained_rate` is the last rate that it kept up with (None if none), `saturated_rate` the first that it did not
    (None if none), `peak_per_second` the most that it answered. A cancelled sweep returns its whole steps, with
    `unfinished`. Raises InvalidError unless rates rise.
    """
    if any(later <= earlier for earlier, later in pairwise(rates)):
        raise InvalidError("the rates of a sweep must rise", reason="BAD_RATE", field="rates")
    steps: list[Step] = []
    told: list[dict[str, Any]] = []
    unfinished: dict[str, str] = {}
    for number, rate in enumerate(rates):
        try:
            records = await trial(rate, seed + number)
        except asyncio.CancelledError:
            unfinished = {"unfinished": f"interrupted after {len(steps)} steps"}
            break
        step = judge_step(records, rate, seconds)
        steps.append(step)
        told.append(asdict(step) | dict(more(records)))
        seen(step)
        if step.saturated:
            break
    kept = [step.rate for step in steps if not step.saturated]
    return {
        "steps": told,
        "step_seconds": seconds,
        "sustained_rate": kept[-1] if kept else None,
        "saturated_rate": steps[-1].rate if steps and steps[-1].saturated else None,
        "peak_per_second": max((step.answered_per_second for step in steps), default=0.0),
        "rule": f"saturated: the queue grew by over {1 - KEEPS_UP:.0%} of what came in the second half of the step, or "
        f"over {REFUSES:.0%} of all requests failed",
        **unfinished,
    }


def _waiting(records: Sequence[RequestRecord], moment: float) -> int:
    return sum(r.intended <= moment and (r.end is None or r.end > moment) for r in records)
