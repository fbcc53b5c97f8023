"""A measured figure: value, 95 % bootstrap interval, and how it was computed."""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
"""Bootstrap resamples of every interval."""
SEED = 0
"""Seed of the bootstrap."""


@dataclass(frozen=True)
class Measured:
    """A figure. `low` and `high` bound the 95 % interval; both are None where none was computed."""

    value: float
    method: str
    """Library, version and settings, for example "scikit-learn 1.9.1; labels fixed; zero_division=0"."""
    low: float | None = None
    high: float | None = None


def method(distribution: str, *settings: str) -> str:
    """`distribution`, its installed version, and the settings that a reader needs to compute the figure again."""
    return "; ".join((f"{distribution} {version(distribution)}", *settings))


def percentile_interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of bootstrap values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def flatten(figures: dict[str, Measured]) -> dict[str, object]:
    """The form in report files: each figure under its name, and beside them `intervals` and `methods`."""
    return {
        **{name: figure.value for name, figure in figures.items()},
        "intervals": {n: [f.low, f.high] for n, f in figures.items() if f.low is not None},
        "methods": {name: figure.method for name, figure in figures.items()},
    }
