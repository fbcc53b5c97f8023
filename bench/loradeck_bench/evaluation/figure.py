"""A figure as a function of sums over items, so that it can be measured, resampled, and compared on the same items."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loradeck_bench.evaluation.measured import RESAMPLES, SEED, Measured, percentile_interval

Floats = npt.NDArray[np.float64]
BOOTSTRAP = f"interval: percentile bootstrap over items, {RESAMPLES} resamples, seed {SEED}"
_CHUNK = 100
"""Resamples that are held at once: their weights take items x 800 bytes."""


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Elementwise ratio, 0 where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    ratio: Floats = np.divide(numerator, denominator, out=np.zeros(shape), where=np.asarray(denominator) != 0)
    return ratio


def _ratio(totals: Floats) -> Floats:
    return divide(totals[..., 0], totals[..., 1])


def _f1(totals: Floats) -> Floats:
    return divide(2 * totals[..., 0], totals[..., 1] + totals[..., 2])


def _perplexity(totals: Floats) -> Floats:
    powers: Floats = np.exp(_ratio(totals))
    return powers


COMBINED: dict[str, Callable[[Floats], Floats]] = {"ratio": _ratio, "f1": _f1, "perplexity": _perplexity}
"""Ways to combine sums that result files name: numerator by denominator (a mean is one by 1); F1 of hits, given and
gold; the exponential of a ratio."""


@dataclass(frozen=True)
class Figure:
    """`parts` [items, k] are summed over items, and `combine` makes values [...] of sums [..., k]."""

    parts: Floats
    combine: Callable[[Floats], Floats]
    how: str
    """Library, version, settings."""
    kind: str | None = None
    """Name in COMBINED where `combine` is from there: such parts are kept item by item in result files."""

    def __post_init__(self) -> None:
        if not len(self.parts):
            raise ValueError("no items to measure")

    @property
    def value(self) -> float:
        """The figure of the items as they are."""
        return float(self.combine(self.parts.sum(axis=0)))

    def weighted(self, weights: npt.NDArray[np.int64]) -> Floats:
        """Values [resamples] where item i counts `weights[resample, i]` times."""
        return self.combine(weights @ self.parts)

    def measured(self) -> Measured:
        """The value with its 95 % percentile bootstrap interval over items."""
        drawn = [self.weighted(weights) for weights in resamples(len(self.parts))]
        return Measured(self.value, f"{self.how}; {BOOTSTRAP}", *percentile_interval(np.concatenate(drawn)))


def resamples(items: int, count: int = RESAMPLES) -> Iterator[npt.NDArray[np.int64]]:
    """`count` bootstrap resamples as how often each item was drawn, [up to 100, items] at a time; always the same."""
    rng = np.random.default_rng(SEED)
    for begun in range(0, count, _CHUNK):
        yield rng.multinomial(items, np.full(items, 1 / items), size=min(_CHUNK, count - begun))


def combined(kind: str, parts: Sequence[Sequence[float]], how: str) -> Figure:
    """A figure of a kind in COMBINED. Raises ValueError without items."""
    return Figure(np.asarray(parts, dtype=np.float64), COMBINED[kind], how, kind)


def mean(values: Sequence[float], how: str) -> Figure:
    """The mean of one value per item. Raises ValueError without items."""
    return combined("ratio", [(float(value), 1.0) for value in values], how)
