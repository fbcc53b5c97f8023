"""One evaluation as one HTML file that asks nothing of the network: figures, confusion, reliability, answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from loradeck_bench.report.canvas import PALETTE, embedded, styled, subplots
from loradeck_bench.report.quality_figures import confusion_picture
from loradeck_bench.report.units import fixed

SHOWN = 20
"""Answers shown: wrong ones first."""


@styled
def reliability_picture(bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over confidence by bin with exact 95 % intervals, and how many answers each bin has."""
    filled = [one for one in bins if one["count"]]
    figure, (curve, counts) = subplots(2, width=7.2, height=3.0)
    sure = [one["confidence"] for one in filled]
    right = np.array([one["accuracy"] for one in filled])
    bounds = np.array([one["interval"] for one in filled])
    curve.plot([0, 1], [0, 1], color=PALETTE[5], linewidth=0.8, linestyle="--", label="calibrated")
    whiskers = [np.maximum(right - bounds[:, 0], 0), np.maximum(bounds[:, 1] - right, 0)]
    curve.errorbar(sure, right, yerr=whiskers, color=PALETTE[0], marker="o", markersize=4, capsize=2)
    curve.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability of the answer", ylabel="share right")
    curve.legend(loc="upper left")
    width = bins[0]["high"] - bins[0]["low"]
    counts.bar(
        [one["low"] for one in bins], [one["count"] for one in bins], width=0.92 * width, align="edge", color=PALETTE[0]
    )
    counts.set(xlim=(0, 1), xlabel="probability of the answer", ylabel="answers")
    return embedded(figure)


def render_page(result: Mapping[str, Any], title: str) -> str:
    """The HTML of a result of `eval run`, `eval score`, `eval loss` or `eval judge`."""
    environment = Environment(
        loader=PackageLoader("loradeck_bench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fixed"] = fixed
    return environment.get_template("evaluation.html").render(
        result=result,
        title=title,
        confusion=confusion_picture(result["confusion"]) if "confusion" in result else None,
        reliability=reliability_picture(result["reliability"]) if "reliability" in result else None,
        shown=_shown(result.get("items", ())),
    )


def _shown(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first wrong or failed answers, then right ones."""
    answered = [item for item in items if "answer" in item]
    return sorted(answered, key=lambda item: item["answer"].strip() == item["gold"].strip())[:SHOWN]
