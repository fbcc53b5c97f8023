"""Paired tests of a difference between two models: exact McNemar, paired bootstrap, Holm's correction, and power."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from loradeck_bench.evaluation.figure import Figure, resamples
from loradeck_bench.evaluation.measured import percentile_interval

RESAMPLES = 10_000
ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Discordant:
    """Items that only one of the two models got right, of `items` in all."""

    items: int
    only_first: int
    only_second: int

    @property
    def p(self) -> float:
        """Exact McNemar test, two-sided: a binomial test of `only_first` among the discordant items with 1/2."""
        total = self.only_first + self.only_second
        return float(binomtest(self.only_first, total).pvalue) if total else 1.0

    @property
    def detectable(self) -> float | None:
        """The smallest difference of the two shares that the test finds with probability POWER at ALPHA, at this share
        of discordant items (Miettinen 1968, normal approximation); None where even a one-sided split is too small."""
        share = (self.only_first + self.only_second) / self.items
        if share == 0:
            return None
        level, power = norm.ppf(1 - ALPHA / 2), norm.ppf(POWER)

        def missing(difference: float) -> float:
            spread = level * math.sqrt(share) + power * math.sqrt(max(share - difference**2, 0.0))
            return float(spread - difference * math.sqrt(self.items))

        return float(brentq(missing, 0.0, share)) if missing(share) < 0 else None


def discordant(first: Sequence[bool], second: Sequence[bool]) -> Discordant:
    """Count the items on which two models, right or wrong, differ."""
    pairs = list(zip(first, second, strict=True))
    return Discordant(len(pairs), sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))


@dataclass(frozen=True)
class Difference:
    """Second minus first, with its 95 % percentile interval and p-value over the same resampled items for both."""

    value: float
    low: float
    high: float
    p: float
    detectable: float
    """The smallest difference found with probability POWER at ALPHA, from the bootstrap's standard error."""


def paired_bootstrap(first: Figure, second: Figure) -> Difference:
    """Resample items, both models on the same ones. p is two-sided: how often a resampled difference is as far from the
    observed one as that is from 0 (Noreen 1989), counting the observed one too, so that it is never 0."""
    drawn = np.concatenate(
        [second.weighted(weights) - first.weighted(weights) for weights in resamples(len(first.parts), RESAMPLES)]
    )
    value = second.value - first.value
    # Rounding must not decide whether a resample is as far away as the observed difference.
    extreme = int(np.sum(np.abs(drawn - value) >= abs(value) - 1e-12))
    detectable = float((norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) * drawn.std(ddof=1))
    return Difference(value, *percentile_interval(drawn), (extreme + 1) / (RESAMPLES + 1), detectable)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in the order given; at most 1."""
    order = sorted(range(len(values)), key=lambda position: values[position])
    adjusted = [0.0] * len(values)
    largest = 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[position]))
        adjusted[position] = largest
    return adjusted
