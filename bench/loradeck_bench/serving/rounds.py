"""Rounds of things that take turns, and what they add up to: medians, ratios of neighbours, and their intervals."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
RESAMPLES = 1000


def turns(rounds: int, arms: Sequence[T], *, warm_up: bool = True) -> Iterator[tuple[int, T]]:
    """Each arm once per round, in turn forwards and backwards, so that nobody always comes after the same neighbour.

    With `warm_up` there is one round before the first, -1.
    """
    for number in range(-1 if warm_up else 0, rounds):
        for arm in arms if number % 2 else arms[::-1]:
            yield number, arm


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round: what else the machine did fell on both."""
    return [a / b for a, b in zip(mine, theirs, strict=True)]


def median(values: Sequence[float]) -> float:
    """The median."""
    return float(np.median(values))


def interval(values: Sequence[float], seed: int = 0) -> list[float]:
    """95 % percentile bootstrap interval of the median of `values`."""
    generator = np.random.default_rng(seed)
    samples = np.median(generator.choice(np.asarray(values), (RESAMPLES, len(values))), axis=1)
    return [float(value) for value in np.percentile(samples, (2.5, 97.5))]
