"""Classification: the report of precision, recall and F1 by class with intervals, and the confusion matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_fscore_support

from loradeck_bench.evaluation.calibration import calibration
from loradeck_bench.evaluation.figure import Figure, Floats, divide, mean, resamples
from loradeck_bench.evaluation.measured import flatten, method, percentile_interval

OTHER = "OTHER"
"""Row of answers that are none of the labels."""
RATIOS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ReportRow:
    """One line of the report. The accuracy line has its value under `f1`, and no precision or recall."""

    name: str
    precision: float | None
    recall: float | None
    f1: float
    support: int


def fold_other(predicted: Sequence[str], labels: Sequence[str]) -> list[str]:
    """`predicted` with every answer outside `labels` replaced by OTHER."""
    known = set(labels)
    return [answer if answer in known else OTHER for answer in predicted]


def classification_report(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str], *, other: bool = False
) -> list[ReportRow]:
    """Rows by class, then accuracy, macro avg and weighted avg.

    An answer outside `labels` is a miss of its gold class. With `other` it is also counted in a row OTHER (support 0),
    which then takes part in the macro average. Undefined ratios are 0. Raises ValueError if a gold label is unknown or
    nothing was answered.
    """
    if not gold or len(gold) != len(predicted):
        raise ValueError("gold and predicted must be of one length, and not empty")
    unknown = sorted(set(gold) - set(labels))
    if unknown:
        raise ValueError(f"gold labels outside the label set: {', '.join(unknown)}")
    names = sorted({*labels, OTHER}) if other else list(labels)
    answers = fold_other(predicted, labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        list(gold), answers, labels=names, average=None, zero_division=0
    )
    rows = [
        ReportRow(name, float(p), float(r), float(f), int(s))
        for name, p, r, f, s in zip(names, precision, recall, f1, support, strict=True)
    ]
    total = len(gold)
    accuracy = sum(a == b for a, b in zip(gold, answers, strict=True)) / total
    rows.append(ReportRow("accuracy", None, None, accuracy, total))
    for title, weights in (("macro avg", np.ones(len(names))), ("weighted avg", np.asarray(support, dtype=float))):
        averages = [float(np.average(column, weights=weights)) for column in (precision, recall, f1)]
        rows.append(ReportRow(title, averages[0], averages[1], averages[2], total))
    return rows


def confusion_matrix(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Counts [len(labels), len(labels) + 1]: row the gold label, column the answer, the last column OTHER."""
    index = {label: position for position, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    for truth, answer in zip(gold, predicted, strict=True):
        counts[index[truth], index.get(answer, len(labels))] += 1
    return counts


def class_parts(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Floats:
    """Per item and label [items, 3 x labels]: hit, gold, answered. All ratios of the report follow from their sums."""
    index = {label: position for position, label in enumerate(labels)}
    parts = np.zeros((len(gold), 3, len(labels)))
    for row, (truth, answer) in enumerate(zip(gold, predicted, strict=True)):
        parts[row, 1, index[truth]] = 1
        if answer in index:
            parts[row, 2, index[answer]] = 1
            parts[row, 0, index[answer]] = answer == truth
    return parts.reshape(len(gold), -1)


def by_class(totals: Floats) -> Floats:
    """Precision, recall and F1 by class [..., 3, labels] from summed `class_parts` [..., 3 x labels]."""
    hits, gold, answered = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, -1), -2, 0)
    return np.stack([divide(hits, answered), divide(hits, gold), divide(2 * hits, gold + answered)], axis=-2)


def _macro(ratio: int, totals: Floats) -> Floats:
    values: Floats = by_class(totals)[..., ratio, :].mean(axis=-1)
    return values


def _weighted(totals: Floats) -> Floats:
    support = totals.reshape(*totals.shape[:-1], 3, -1)[..., 1, :]
    return divide((by_class(totals)[..., 2, :] * support).sum(axis=-1), support.sum(axis=-1))


def class_figures(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Figure]:
    """Accuracy, macro precision, recall and F1, and weighted F1."""
    how = method("scikit-learn", "labels fixed to the task's", "zero_division=0")
    parts = class_parts(gold, predicted, labels)
    macro = {f"macro_{name}": Figure(parts, partial(_macro, number), how) for number, name in enumerate(RATIOS)}
    return {
        "accuracy": mean([a == b for a, b in zip(gold, predicted, strict=True)], how),
        "macro_f1": macro["macro_f1"],
        "macro_precision": macro["macro_precision"],
        "macro_recall": macro["macro_recall"],
        "weighted_f1": Figure(parts, _weighted, how),
    }


def class_intervals(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> dict[str, dict[str, tuple[float, float]]]:
    """95 % intervals of precision, recall and F1 of each class, by the same resamples as all other figures."""
    parts = class_parts(gold, predicted, labels)
    drawn = np.concatenate([by_class(weights @ parts) for weights in resamples(len(gold))])
    return {
        label: {name: percentile_interval(drawn[:, ratio, position]) for ratio, name in enumerate(RATIOS)}
        for position, label in enumerate(labels)
    }


def evaluate_classification(
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    confidence: Sequence[float] | None = None,
) -> dict[str, object]:
    """All figures of one run in the form of report files: `accuracy`, `macro_f1`, …, `report`, `confusion`.

    With `confidence`, the probability of each answer, also `ece`, `brier` and `reliability`.
    """
    rows = classification_report(gold, predicted, labels)
    counts = confusion_matrix(gold, predicted, labels)
    figures = class_figures(gold, predicted, labels)
    curve: dict[str, object] = {}
    if confidence is not None:
        calibrated, bins = calibration([a == b for a, b in zip(gold, predicted, strict=True)], confidence)
        figures |= calibrated
        curve = {"reliability": bins}
    intervals = class_intervals(gold, predicted, labels)
    return {
        **flatten({name: figure.measured() for name, figure in figures.items()}),
        **curve,
        "other": int(counts[:, -1].sum()),
        "report": _with_intervals(rows, intervals),
        "report_with_other": _with_intervals(classification_report(gold, predicted, labels, other=True), intervals),
        "confusion": {"labels": [*labels, OTHER], "counts": counts.tolist()},
    }


def _with_intervals(
    rows: Sequence[ReportRow], intervals: Mapping[str, Mapping[str, tuple[float, float]]]
) -> list[dict[str, object]]:
    """Rows as JSON; those of classes with `intervals` of their three ratios."""
    return [
        asdict(row)
        | ({"intervals": {n: list(b) for n, b in intervals[row.name].items()}} if row.name in intervals else {})
        for row in rows
    ]
