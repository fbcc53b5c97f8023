"""Goodput: the highest rate at which a given share of requests meets every bound of a service-level objective."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.saturation import Trial
from loradeck_registry.errors import InvalidError

BOUNDS = ("ttft", "tpot", "latency")


@dataclass(frozen=True)
class Objective:
    """Bounds in milliseconds for every single request, and the share of requests that must keep them all."""

    bounds: dict[str, float]
    attainment: float = 0.95

    @classmethod
    def parse(cls, texts: Sequence[str], attainment: float = 0.95) -> "Objective":
        """`ttft=200`, `tpot=50`, `latency=1000`. Raises InvalidError (BAD_SLO)."""
        bounds: dict[str, float] = {}
        for text in texts:
            name, _, value = text.partition("=")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if name not in BOUNDS or not (math.isfinite(number) and number > 0):
                raise InvalidError(
                    f"bad objective {text!r}: use NAME=MILLISECONDS with NAME one of {', '.join(BOUNDS)}",
                    reason="BAD_SLO",
                    field="slo",
                )
            bounds[name] = number
        if not bounds or not 0 < attainment <= 1:
            raise InvalidError("an objective needs a bound, and a share in 0 to 1", reason="BAD_SLO", field="slo")
        return cls(bounds, attainment)

    def met_by(self, record: RequestRecord) -> bool:
        """Whether the request was answered within all bounds. A reply that is not streamed begins with its end, and one
        of a single token has no time per further token."""
        if not record.ok or record.latency is None:
            return False
        ttft = record.latency if record.ttft is None else record.ttft
        times = {"ttft": ttft, "tpot": record.tpot or 0.0, "latency": record.latency}
        return all(times[name] * 1000 <= bound for name, bound in self.bounds.items())

    def attained(self, records: Sequence[RequestRecord]) -> float:
        """Share of `records` that meet it; 0 without any."""
        return sum(map(self.met_by, records)) / len(records) if records else 0.0


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
) -> dict[str, Any]:
    """The highest rate that holds `objective`: doubled from `start` (halved if it fails there) until it is bracketed,
    then bisected on a logarithmic scale down to `precision`, then confirmed with other arrivals; if that fails, the
    next lower rate that held is confirmed in its place.

    `rate` is None if none held in `most` trials, or down to `lowest`. `bracketed` says whether a higher rate was seen
    to fail. A cancelled search returns what it tried, with `unfinished`.
    """
    trials: list[Tried] = []

    async def held(rate: float) -> bool:
        records = await trial(rate, seed + len(trials))
        share = objective.attained(records)
        tried = Tried(rate, len(records), share, share >= objective.attainment)
        trials.append(tried)
        seen(tried)
        return tried.held

    good: list[float] = []
    bad: float | None = None
    rate, confirmed, unfinished = start, None, {}
    try:
        while rate >= lowest and len(trials) < most and not _found(good, bad, precision):
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
        "objective": {"bounds_ms": objective.bounds, "attainment": objective.attainment},
        "rate": confirmed,
        "goodput_per_second": confirmed * trials[-1].attained if confirmed else None,
        "bracketed": bad is not None,
        "precision": precision,
        "trials": [asdict(tried) for tried in trials],
        **unfinished,
    }


def _found(good: Sequence[float], bad: float | None, precision: float) -> bool:
    return bool(good) and bad is not None and bad / good[-1] <= 1 + precision


def _next(good: Sequence[float], bad: float | None, rate: float) -> float:
    if bad is None:
        return rate * 2
    return math.sqrt(good[-1] * bad) if good else rate / 2
