"""Figures of training and quality: loss curves, metric bars with intervals, confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loradeck_bench.report.canvas import COLOURS, NAMES, PALETTE, embedded, styled, subplots

MODELS = ("tfidf", "base", "lora", "full")
"""Models in the order of every table and figure."""
BARS = {
    "classification": ("accuracy", "macro_f1"),
    "short_qa": ("bleu", "rouge_1", "chrf", "tfidf_cosine"),
    "long_qa": ("bleu", "rouge_1", "chrf", "tfidf_cosine"),
}
"""Metrics drawn for each task; all lie between 0 and 1."""


@styled
def loss_curves(training: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Training loss over steps, one pane per run; None if no run kept its losses."""
    curves = {name: points for name, run in training.items() if (points := _points(run.get("loss_history")))}
    if not curves:
        return None
    figure, panes = subplots(len(curves), width=2.6 * len(curves) + 0.6, height=2.6)
    for pane, (name, points), colour in zip(panes, curves.items(), PALETTE * len(curves), strict=False):
        pane.plot([step for step, _ in points], [loss for _, loss in points], color=colour, linewidth=1.4)
        pane.set(title=name, xlabel="step")
    panes[0].set_ylabel("training loss")
    return embedded(figure)


@styled
def metric_bars(task: str, models: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Bars of a task's metrics by model, whiskers for 95 % intervals; None without any model."""
    present = [model for model in MODELS if model in models and "error" not in models[model]]
    if not present:
        return None
    metrics = BARS[task]
    figure, (pane,) = subplots(1, width=1.2 * len(metrics) + 3.6)
    width = 0.8 / len(present)
    for position, model in enumerate(present):
        values = [float(models[model][metric]) for metric in metrics]
        bounds = [
            models[model].get("intervals", {}).get(metric, [v, v]) for metric, v in zip(metrics, values, strict=True)
        ]
        places = np.arange(len(metrics)) + (position - (len(present) - 1) / 2) * width
        whiskers = np.array(
            [[max(0.0, v - low), max(0.0, high - v)] for v, (low, high) in zip(values, bounds, strict=True)]
        ).T
        bars = pane.bar(places, values, width, color=COLOURS[model], label=NAMES[model], yerr=whiskers, capsize=2)
        pane.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=8)
    pane.set_xticks(range(len(metrics)), [metric.replace("_", " ") for metric in metrics])
    pane.set_ylim(0, 1.15)
    figure.legend(loc="outside lower center", ncols=len(present))
    return embedded(figure)


@styled
def confusion_picture(confusion: Mapping[str, Any]) -> str:
    """The confusion matrix: rows gold, columns answers, each cell a share of its row with the count written in."""
    counts = np.asarray(confusion["counts"], dtype=float)
    labels: Sequence[str] = confusion["labels"]
    if counts[:, -1].sum() == 0:
        counts, labels = counts[:, :-1], labels[:-1]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.36 * len(labels) + 2.0
    figure, (pane,) = subplots(1, width=side + 0.6, height=side)
    pane.grid(False)
    pane.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if share[row, column] > 0.55 else "#23303d"
        pane.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    names = [label if len(label) <= 24 else label[:22] + "…" for label in labels]
    pane.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    pane.set_yticks(range(counts.shape[0]), names[: counts.shape[0]])
    pane.set(xlabel="answer", ylabel="gold label")
    return embedded(figure)


def _points(history: Any) -> list[tuple[float, float]]:
    """(step, loss) of a manifest's loss history, whose entries are mappings with `step` and `loss`."""
    if not isinstance(history, Sequence):
        return []
    return [
        (float(entry["step"]), float(entry["loss"]))
        for entry in history
        if isinstance(entry, Mapping) and "step" in entry and "loss" in entry
    ]
