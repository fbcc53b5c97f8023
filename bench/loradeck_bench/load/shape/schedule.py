"""When requests are meant to be sent: the arrival times of an open loop, fixed before the run starts."""

import itertools
import math
import random
from collections.abc import Iterator

from loradeck_bench.load.shape.profile import RateProfile
from loradeck_registry.errors import InvalidError

LAWS = "poisson, constant or gamma:CV"


def arrival_times(rate: float | RateProfile, duration: float, law: str, seed: int) -> list[float]:
    """Intended send times in seconds from the start, increasing, all below `duration`.

    Gaps have mean 1/rate: `constant` all the same, from 0 on; `poisson` independent and exponential; `gamma:CV`
    independent and gamma distributed with that coefficient of variation (1 is Poisson, more is burstier, less is more
    even). Where the rate changes, time is stretched accordingly. The same seed gives the same times. Raises
    InvalidError for an unknown law, and unless rate and duration are above zero.
    """
    profile = rate if isinstance(rate, RateProfile) else RateProfile.constant(rate, duration)
    times: list[float] = []
    for count in _counts(law, random.Random(seed)):
        time = profile.time_of(count)
        if time is None or time >= duration:
            return times
        times.append(time)
    return times


def _counts(law: str, rng: random.Random) -> Iterator[float]:
    """Arrival times at rate 1, without end."""
    if law == "constant":
        # A count, not sums of gaps: adding up would let rounding decide whether the last one still fits.
        yield from map(float, itertools.count())
    now = 0.0
    draw = _gaps(law, rng)
    while True:
        now += next(draw)
        yield now


def _gaps(law: str, rng: random.Random) -> Iterator[float]:
    name, _, argument = law.partition(":")
    if law == "poisson":
        return iter(lambda: rng.expovariate(1.0), None)
    try:
        variation = float(argument)
    except ValueError:
        variation = math.nan
    if name != "gamma" or not (math.isfinite(variation) and variation > 0):
        raise InvalidError(f"bad arrivals {law!r}: use {LAWS}", reason="BAD_LAW", field="arrivals")
    shape = variation**-2
    return iter(lambda: rng.gammavariate(shape, 1 / shape), None)
