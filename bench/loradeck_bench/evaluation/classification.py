"""Classification: the report of precision, recall and F1 by class, the confusion matrix, and intervals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_fscore_support

from loradeck_bench.evaluation.measured import RESAMPLES, SEED, Measured, flatten, method, percentile_interval

OTHER = "OTHER"
"""Row of answers that are none of the labels."""


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


def _f1_by_class(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """F1 [..., labels] of counts [..., labels, labels + 1]; 0 where a class neither occurs nor is answered."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(axis=-1) + counts[..., :-1].sum(axis=-2)
    f1: npt.NDArray[np.float64] = np.divide(2.0 * hits, both, out=np.zeros(both.shape), where=both > 0)
    return f1


def intervals(counts: npt.NDArray[np.int64]) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap over items of accuracy and macro F1, from confusion counts.

    Drawing items with replacement is drawing the matrix's cells from a multinomial, which needs no loop.
    """
    total = int(counts.sum())
    draws = np.random.default_rng(SEED).multinomial(total, counts.ravel() / total, size=RESAMPLES)
    drawn = draws.reshape(RESAMPLES, *counts.shape)
    accuracy = np.diagonal(drawn, axis1=1, axis2=2).sum(axis=1) / total
    return {
        "accuracy": percentile_interval(accuracy),
        "macro_f1": percentile_interval(_f1_by_class(drawn).mean(axis=1)),
    }


def evaluate_classification(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, object]:
    """All figures of one run in the form of report files: `accuracy`, `macro_f1`, …, `report`, `confusion`."""
    rows = classification_report(gold, predicted, labels)
    by_name = {row.name: row for row in rows[len(labels) :]}
    counts = confusion_matrix(gold, predicted, labels)
    bounds = intervals(counts)
    how = method("scikit-learn", "labels fixed to the task's", "zero_division=0")
    bootstrap = f"interval: percentile bootstrap over items, {RESAMPLES} resamples, seed {SEED}"
    macro, weighted = by_name["macro avg"], by_name["weighted avg"]
    assert macro.precision is not None
    assert macro.recall is not None
    figures = {
        "accuracy": Measured(by_name["accuracy"].f1, f"{how}; {bootstrap}", *bounds["accuracy"]),
        "macro_f1": Measured(macro.f1, f"{how}; {bootstrap}", *bounds["macro_f1"]),
        "macro_precision": Measured(macro.precision, how),
        "macro_recall": Measured(macro.recall, how),
        "weighted_f1": Measured(weighted.f1, how),
    }
    return {
        **flatten(figures),
        "other": int(counts[:, -1].sum()),
        "report": [asdict(row) for row in rows],
        "report_with_other": [asdict(row) for row in classification_report(gold, predicted, labels, other=True)],
        "confusion": {"labels": [*labels, OTHER], "counts": counts.tolist()},
    }
