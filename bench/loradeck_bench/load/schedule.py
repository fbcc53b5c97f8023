"""When requests are meant to be sent: the arrival times of an open loop, fixed before the run starts."""

import random
from typing import Literal

from loradeck_registry.errors import InvalidError

Arrivals = Literal["poisson", "constant"]


def arrival_times(rate: float, duration: float, law: Arrivals, seed: int) -> list[float]:
    """Intended send times in seconds from the start, increasing, all below `duration`.

    `constant` sends every 1/rate seconds from 0; `poisson` has independent exponential gaps of mean 1/rate. The same
    seed gives the same times. Raises InvalidError unless rate and duration are above zero.
    """
    if not rate > 0 or not duration > 0:
        raise InvalidError("rate and duration must be above zero", reason="BAD_RATE", field="rate")
    if law == "constant":
        # Products, not sums: adding up gaps would let rounding decide whether the last one still fits.
        count = int(rate * duration) + 1
        return [index / rate for index in range(count) if index / rate < duration]
    rng = random.Random(seed)
    times: list[float] = []
    now = rng.expovariate(rate)
    while now < duration:
        times.append(now)
        now += rng.expovariate(rate)
    return times
