"""Scores of a judge added up: by category, and as the mean of the categories' means."""

from collections.abc import Sequence

import numpy as np

from loradeck_bench.evaluation.figure import Figure, Floats, divide


def macro(scores: Sequence[float], categories: Sequence[str], how: str) -> Figure:
    """The mean of the means by category: every category counts the same, however many items it has."""
    names = {name: position for position, name in enumerate(sorted(set(categories)))}
    parts = np.zeros((len(scores), 2, len(names)))
    for row, (score, category) in enumerate(zip(scores, categories, strict=True)):
        parts[row, :, names[category]] = score, 1
    return Figure(parts.reshape(len(scores), -1), _mean_of_means, how)


def _mean_of_means(totals: Floats) -> Floats:
    """A category that no resampled item belongs to is left out of that resample's mean."""
    sums, counts = np.moveaxis(totals.reshape(*totals.shape[:-1], 2, -1), -2, 0)
    return divide(divide(sums, counts).sum(axis=-1), (counts > 0).sum(axis=-1).astype(np.float64))
