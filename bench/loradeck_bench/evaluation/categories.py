"""Figures of answers by category, and the macro average: the mean of the categories' figures, each counting once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loradeck_bench.evaluation.figure import Figure, Floats
from loradeck_bench.evaluation.measured import RESAMPLES, SEED, Measured, flatten, percentile_interval


def by_category(figures: Mapping[str, Figure], categories: Sequence[str]) -> dict[str, Any]:
    """`by_category`: for every category its `rows` and figures with 95 % intervals; `macro`: the same of their mean.

    `categories` are those of the figures' items, in their order. Empty where there are fewer than two.
    """
    names = sorted(set(categories))
    if len(names) < 2:
        return {}
    where = {name: [at for at, other in enumerate(categories) if other == name] for name in names}
    table: dict[str, dict[str, Measured]] = {name: {} for name in names}
    means: dict[str, Measured] = {}
    for key, figure in figures.items():
        drawn = []
        for number, name in enumerate(names):
            part = replace(figure, parts=figure.parts[where[name]])
            values = _resampled(part, SEED + number)
            table[name][key] = Measured(part.value, figure.how, *percentile_interval(values))
            drawn.append(values)
        mean = sum(table[name][key].value for name in names) / len(names)
        how = f"{figure.how}; mean of {len(names)} categories; interval: percentile bootstrap within each"
        means[key] = Measured(mean, how, *percentile_interval(np.mean(drawn, axis=0)))
    rows = {name: {"rows": len(where[name]), **flatten(table[name])} for name in names}
    for row in rows.values():
        del row["methods"]
    return {"by_category": rows, "macro": flatten(means)}


def _resampled(figure: Figure, seed: int) -> Floats:
    """The figure of resamples of its items. Every category draws its own, so that their mean varies as it should."""
    items = len(figure.parts)
    weights = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=RESAMPLES)
    return figure.weighted(weights)
