"""Compares evaluations of several models on the same rows: each metric that they share, the first against all."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loradeck_bench.evaluation.figure import Figure
from loradeck_bench.evaluation.measured import method
from loradeck_bench.evaluation.paired.results import figures_of, matched
from loradeck_bench.evaluation.paired.tests import ALPHA, POWER, RESAMPLES, discordant, holm, paired_bootstrap
from loradeck_registry.errors import InvalidError, NotFoundError

ABOUT_ROWS = frozenset({"ref_len"})
"""Figures of the references alone, the same for every model."""


def compare(results: Sequence[Mapping[str, Any]], names: Sequence[str], metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Test every later result against the first, on `metrics` or on all that they share.

    0/1 metrics get the exact McNemar test, the others the paired bootstrap; p-values are adjusted by Holm over all rows
    of the table. Raises InvalidError for results of different rows, NotFoundError for a metric that one of them lacks.
    """
    if len(results) < 2:
        raise InvalidError("give two results or more", field="result")
    rows, notes = [], []
    for name, result in zip(names[1:], results[1:], strict=True):
        pairs = matched(results[0], result)
        for metric in _shared(results[0], result, metrics):
            tested = _tested(results[0], result, metric, pairs)
            if tested is not None:
                rows.append({"metric": metric, "first": names[0], "second": name, **tested})
            if results[0]["methods"][metric] != result["methods"][metric]:
                notes.append(f"{metric} was not computed in the same way for {names[0]} and {name}: see their methods")
    if not rows:
        raise InvalidError("the evaluations share no metric that can be tested", reason="NO_METRIC", field="metric")
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
        higher = row["second"] if row["difference"] > 0 else row["first"]
        row["verdict"] = f"{higher} is higher" if adjusted < ALPHA else "no difference shown"
    return {
        "comparisons": rows,
        "tests": len(rows),
        "alpha": ALPHA,
        "power": POWER,
        "notes": notes,
        "method": _method(),
    }


def _shared(first: Mapping[str, Any], second: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    shared = [name for name in first["methods"] if name in second["methods"] and name not in ABOUT_ROWS]
    for name in metrics:
        if name not in shared:
            raise NotFoundError(
                f"no metric {name!r} in both results: they share {', '.join(shared) or 'none'}",
                reason="UNKNOWN_METRIC",
                field="metric",
            )
    return list(metrics) or shared


def _tested(
    first: Mapping[str, Any], second: Mapping[str, Any], metric: str, pairs: Sequence[tuple[Any, Any]]
) -> dict[str, Any] | None:
    if metric in first.get("combined", {}) or metric == "judge_macro":
        key = "judge_mean" if metric == "judge_macro" else metric
        pairs = [pair for pair in pairs if all(key in item.get("scores", {}) for item in pair)]
    if not pairs:
        return None
    ours = figures_of(first, [a for a, _ in pairs], metric)
    theirs = figures_of(second, [b for _, b in pairs], metric)
    if ours is None or theirs is None:
        return None
    difference = paired_bootstrap(ours, theirs)
    row: dict[str, Any] = {
        "items": len(pairs),
        "first_value": ours.value,
        "second_value": theirs.value,
        "difference": difference.value,
        "interval": [difference.low, difference.high],
        "test": "paired bootstrap",
        "p": difference.p,
        "smallest_detectable": difference.detectable,
    }
    right = _right_or_wrong(ours, theirs)
    if right is not None:
        counted = discordant(*right)
        row |= {"test": "exact McNemar", "items": counted.items, "p": counted.p}
        row |= {"only_first": counted.only_first, "only_second": counted.only_second}
        row["smallest_detectable"] = counted.detectable
    return row


def _right_or_wrong(first: Figure, second: Figure) -> tuple[list[bool], list[bool]] | None:
    """Each item as right or wrong for both, where the figures are shares of such, without items that do not count."""
    if first.kind != "ratio" or second.kind != "ratio" or not np.array_equal(first.parts[:, 1], second.parts[:, 1]):
        return None
    counted = first.parts[:, 1] == 1
    hits = first.parts[:, 0], second.parts[:, 0]
    if not (
        np.isin(first.parts[:, 1], (0, 1)).all() and all(np.isin(values[counted], (0, 1)).all() for values in hits)
    ):
        return None
    return hits[0][counted].astype(bool).tolist(), hits[1][counted].astype(bool).tolist()


def _method() -> str:
    return "; ".join((
        method("scipy", "exact McNemar (binomial, two-sided) for 0/1 metrics"),
        f"else paired bootstrap over items, {RESAMPLES} resamples, two-sided, seed 0",
        "intervals: percentile, 95 %, same resamples for both models",
        "p_holm: Holm over all rows",
        f"smallest_detectable: found with probability {POWER:g} at {ALPHA:g} before correction, at this spread",
    ))  # fmt: skip
