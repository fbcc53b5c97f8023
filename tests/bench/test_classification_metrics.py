"""Classification figures against examples computed by hand."""

import numpy as np
import pytest

from loradeck_bench.evaluation.classification import (
    OTHER,
    ReportRow,
    classification_report,
    confusion_matrix,
    evaluate_classification,
    intervals,
)

LABELS = ["a", "b", "c"]
GOLD = ["a", "a", "a", "b", "b", "c"]
PREDICTED = ["a", "a", "b", "b", "nonsense", "a"]
# a: 2 hits, 3 answered, 3 gold; b: 1 hit, 2 answered, 2 gold; c: 0 hits, 0 answered, 1 gold.


def row(rows: list[ReportRow], name: str) -> ReportRow:
    return next(r for r in rows if r.name == name)


def test_report_matches_hand_computation() -> None:
    rows = classification_report(GOLD, PREDICTED, LABELS)
    assert [r.name for r in rows] == ["a", "b", "c", "accuracy", "macro avg", "weighted avg"]
    first = row(rows, "a")
    assert (first.precision, first.recall, first.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert first.support == 3
    assert row(rows, "b") == ReportRow("b", 0.5, 0.5, 0.5, 2)
    assert row(rows, "c") == ReportRow("c", 0.0, 0.0, 0.0, 1)
    assert row(rows, "accuracy").f1 == pytest.approx(3 / 6)
    assert row(rows, "macro avg").f1 == pytest.approx((2 / 3 + 0.5) / 3)
    assert row(rows, "weighted avg").f1 == pytest.approx((3 * 2 / 3 + 2 * 0.5) / 6)


def test_other_is_a_row_of_its_own_and_counts_in_the_macro_average() -> None:
    rows = classification_report(GOLD, PREDICTED, LABELS, other=True)
    assert row(rows, OTHER) == ReportRow(OTHER, 0.0, 0.0, 0.0, 0)
    assert row(rows, "macro avg").f1 == pytest.approx((2 / 3 + 0.5) / 4)
    assert row(rows, "weighted avg").f1 == pytest.approx((3 * 2 / 3 + 2 * 0.5) / 6)
    assert row(rows, "accuracy").f1 == pytest.approx(0.5)


def test_rows_keep_the_label_order_and_other_is_sorted_in() -> None:
    rows = classification_report(["Telecom", "AI"], ["Telecom", "x"], ["AI", "Telecom"], other=True)
    assert [r.name for r in rows[:3]] == ["AI", OTHER, "Telecom"]


def test_confusion_matrix_has_a_last_column_for_other() -> None:
    assert confusion_matrix(GOLD, PREDICTED, LABELS).tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]]


def test_gold_label_outside_the_set_is_refused() -> None:
    with pytest.raises(ValueError, match="gold labels outside the label set: z"):
        classification_report(["z"], ["a"], LABELS)


def test_intervals_agree_with_a_bootstrap_over_items() -> None:
    rng = np.random.default_rng(3)
    gold = [LABELS[i] for i in rng.integers(0, 3, 300)]
    predicted = [g if rng.random() < 0.8 else "a" for g in gold]
    low, high = intervals(confusion_matrix(gold, predicted, LABELS))["accuracy"]
    hits = np.array([g == p for g, p in zip(gold, predicted, strict=True)], dtype=float)
    means = hits[rng.integers(0, 300, size=(4000, 300))].mean(axis=1)
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.01)
    macro_low, macro_high = intervals(confusion_matrix(gold, predicted, LABELS))["macro_f1"]
    assert macro_low < row(classification_report(gold, predicted, LABELS), "macro avg").f1 < macro_high


def test_figures_name_library_version_and_settings() -> None:
    figures = evaluate_classification(GOLD, PREDICTED, LABELS)
    assert figures["accuracy"] == pytest.approx(0.5)
    assert figures["other"] == 1
    methods = figures["methods"]
    assert isinstance(methods, dict)
    assert methods["macro_f1"].startswith("scikit-learn ")
    assert "zero_division=0" in methods["macro_f1"]
    assert len(figures["report_with_other"]) == len(figures["report"]) + 1  # type: ignore[arg-type]
