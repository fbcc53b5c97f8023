"""Times as percentiles, each with its 95 % bootstrap interval."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PERCENTILES = (50, 90, 95, 99)
RESAMPLES = 1000
"""Bootstrap resamples of every interval of a percentile of requests."""
CLUSTER_RESAMPLES = 200
"""The same of percentiles of tokens, which are resampled by request."""
BOOTSTRAP = (
    f"95 % percentile bootstrap over requests, seed 0, {RESAMPLES} resamples ({CLUSTER_RESAMPLES} for times between "
    "tokens, which are drawn with their request)"
)
_Floats = npt.NDArray[np.float64]


def spread(seconds: Iterable[float | None], *, bounded: bool = True) -> dict[str, Any] | None:
    """Count, mean, percentiles (linear interpolation) and maximum in milliseconds of the values that exist; None
    without any. `bounded` adds `intervals` of the percentiles, unless there is only one value."""
    values = np.sort(np.asarray([value for value in seconds if value is not None], dtype=np.float64)) * 1000
    found = _marks(values)
    if found is not None and bounded and values.size > 1:
        rng = np.random.default_rng(0)
        found["intervals"] = {f"p{mark}": _bounds(_resampled(values, mark, rng)) for mark in PERCENTILES}
    return found


def grouped_spread(groups: Sequence[Sequence[float]], *, bounded: bool = True) -> dict[str, Any] | None:
    """The same of all values of all groups, whose intervals resample whole groups: times between the tokens of one
    request are no independent samples."""
    filled = [np.asarray(group, dtype=np.float64) * 1000 for group in groups if len(group)]
    if not filled:
        return None
    values = np.concatenate(filled)
    order = np.argsort(values, kind="stable")
    found = _marks(values[order])
    if found is not None and bounded and len(filled) > 1:
        owner = np.repeat(np.arange(len(filled)), [len(group) for group in filled])[order]
        found["intervals"] = _group_bounds(values[order], owner, len(filled))
    return found


def _marks(values: _Floats) -> dict[str, Any] | None:
    if values.size == 0:
        return None
    marks = np.percentile(values, PERCENTILES)
    return {
        "count": int(values.size),
        "mean": float(values.mean()),
        **{f"p{mark}": float(value) for mark, value in zip(PERCENTILES, marks, strict=True)},
        "max": float(values.max()),
    }


def _resampled(values: _Floats, mark: int, rng: np.random.Generator) -> _Floats:
    """The percentile of RESAMPLES bootstrap resamples of the sorted `values`, without drawing them.

    The order statistics of n draws are values at the order statistics of n uniform numbers, and of those the k-th and
    the next are ratios of sums of exponential ones: k of them, one more, and all n + 1.
    """
    n = values.size
    place = (n - 1) * mark / 100
    below = min(int(place), n - 2)
    share = place - below
    lower = rng.gamma(below + 1, size=RESAMPLES)
    upper = lower + rng.exponential(size=RESAMPLES)
    whole = upper + rng.gamma(n - below - 1, size=RESAMPLES)
    first, second = (values[np.minimum((n * part / whole).astype(np.int64), n - 1)] for part in (lower, upper))
    drawn: _Floats = (1 - share) * first + share * second
    return drawn


def _group_bounds(values: _Floats, owner: npt.NDArray[np.int64], groups: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    found = np.empty((CLUSTER_RESAMPLES, len(PERCENTILES)))
    for number in range(CLUSTER_RESAMPLES):
        counts = rng.multinomial(groups, np.full(groups, 1 / groups))
        heaped = np.cumsum(counts[owner])
        places = np.searchsorted(heaped, np.asarray(PERCENTILES) / 100 * heaped[-1])
        found[number] = values[np.minimum(places, values.size - 1)]
    return {f"p{mark}": _bounds(found[:, column]) for column, mark in enumerate(PERCENTILES)}


def _bounds(drawn: _Floats) -> list[float]:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return [float(low), float(high)]
