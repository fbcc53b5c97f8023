"""Calibration of a classifier: does it answer with probability 0.8 where it is right in 8 of 10 cases?

Expected calibration error and the reliability curve of Guo et al., "On Calibration of Modern Neural Networks" (2017).
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from loradeck_bench.evaluation.figure import Figure, Floats, divide, mean
from loradeck_bench.evaluation.measured import method

BINS = 10
"""Bins of equal width over the confidence, 0 to 1; k / 10 itself is in the upper one, 1 in the last."""


def calibration(
    correct: Sequence[bool], confidence: Sequence[float]
) -> tuple[dict[str, Figure], list[dict[str, object]]]:
    """`ece`, `brier` and `mean_confidence`, and the reliability curve, bin by bin.

    `confidence` is the probability of the answer that was given. `ece` is the mean distance of confidence and accuracy
    over the bins, weighted by their items; `brier` the mean squared distance of the confidence from being right. A bin
    of the curve has `low`, `high`, `count`, and, unless empty, `confidence`, `accuracy` and its exact 95 % interval.
    Raises ValueError without items or for a confidence outside 0 to 1.
    """
    right, sure = np.asarray(correct, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    # The sum of float32 probabilities can pass 1 by their rounding.
    if not np.all((sure >= 0) & (sure <= 1 + 1e-4)):
        raise ValueError("a probability outside 0 to 1")
    sure = np.minimum(sure, 1.0)
    how = method("numpy", f"{BINS} bins of equal width over the probability of the answer (Guo et al. 2017)")
    binned = np.minimum((sure * BINS).astype(int), BINS - 1)
    parts = np.zeros((len(right), 3, BINS))
    rows = np.arange(len(right))
    for number, values in enumerate((np.ones(len(right)), right, sure)):
        parts[rows, number, binned] = values
    figures = {
        "ece": Figure(parts.reshape(len(right), -1), _expected_error, how),
        "brier": mean(((sure - right) ** 2).tolist(), method("loradeck", "mean (probability of the answer - right)^2")),
        "mean_confidence": mean(sure.tolist(), method("loradeck", "mean probability of the answer")),
    }
    return figures, [_bin(number, *parts[:, :, number].sum(axis=0)) for number in range(BINS)]


def _expected_error(totals: Floats) -> Floats:
    counts, right, sure = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, BINS), -2, 0)
    return divide(np.abs(sure - right).sum(axis=-1), counts.sum(axis=-1))


def _bin(number: int, count: float, right: float, sure: float) -> dict[str, object]:
    row: dict[str, object] = {"low": number / BINS, "high": (number + 1) / BINS, "count": int(count)}
    if count:
        bounds = binomtest(int(right), int(count)).proportion_ci(method="exact")
        row |= {"confidence": sure / count, "accuracy": right / count}
        row["interval"] = [float(bounds.low), float(bounds.high)]
    return row
