"""Goodput: the highest rate at which a given share of requests meets every bound of a service-level objective."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.saturation import Trial


@dataclass(frozen=True)
class Tried:
    """One trial of the search."""

    rate: float
    requests: int
    attained: float
    held: bool


async def search(
    trial: Trial,
    objective: Objective,
    *,
    start: float,
    seed: int,
    precision: float = 0.05,
    most: int = 20,
    lowest: float = 0.0,
    seen: Callable[[Tried], None] = lambda tried: None,
    more: Callable[[Sequence[RequestRecord]], Mapping[str, Any]] = lambda records: {},
) -> dict[str, Any]:
    """The highest rate that holds `objective`: doubled from `start` (halved if it fails there) until it is bracketed,
    then bisected on a logarithmic scale down to `precision`, then confirmed with other arrivals; if that fails, the
    search goes on below it.

    `more` adds to what is said of a trial. `rate` is None if none held in `most` trials, or down to `lowest`.
    `bracketed` says whether a higher rate was seen to fail. A cancelled search returns what it tried, with
    `unfinished`.
    """
    trials: list[Tried] = []
    told: list[dict[str, Any]] = []

    async def held(rate: float) -> bool:
        records = await trial(rate, seed + len(trials))
        share = objective.attained(records)
        tried = Tried(rate, len(records), share, share >= objective.attainment)
        trials.append(tried)
        told.append(asdict(tried) | dict(more(records)))
        seen(tried)
        return tried.held

    good: list[float] = []
    bad: float | None = None
    rate, confirmed, unfinished = start, None, {}
    try:
        while confirmed is None and rate >= lowest and len(trials) < most:
            if _found(good, bad, precision):
                # Once more with other arrivals; a rate that held by luck only bounds the search from above.
                if await held(good[-1]):
                    confirmed = good[-1]
                else:
                    bad = good.pop()
                    rate = _next(good, bad, bad)
                continue
            if await held(rate):
                good.append(rate)
            else:
                bad = rate
            rate = _next(good, bad, rate)
        while good and confirmed is None and len(trials) < most + 5:
            if await held(good[-1]):
                confirmed = good[-1]
            else:
                bad = good.pop()
    except asyncio.CancelledError:
        unfinished = {"unfinished": f"interrupted after {len(trials)} trials"}
    return {
        "objective": objective.describe(),
        "rate": confirmed,
        "goodput_per_second": confirmed * trials[-1].attained if confirmed else None,
        "bracketed": bad is not None,
        "precision": precision,
        "trials": told,
        **unfinished,
    }


def _found(good: Sequence[float], bad: float | None, precision: float) -> bool:
    return bool(good) and bad is not None and bad / good[-1] <= 1 + precision


def _next(good: Sequence[float], bad: float | None, rate: float) -> float:
    if bad is None:
        return rate * 2
    return math.sqrt(good[-1] * bad) if good else rate / 2
