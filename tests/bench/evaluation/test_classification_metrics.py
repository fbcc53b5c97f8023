"""Classification figures against examples computed by hand."""

import numpy as np
import pytest

from loradeck_bench.evaluation.classification import (
    OTHER,
    ReportRow,
    class_figures,
    class_intervals,
    classification_report,
    confusion_matrix,
    evaluate_classification,
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


def drawn(count: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(3)
    gold = [LABELS[i] for i in rng.integers(0, 3, count)]
    return gold, [g if rng.random() < 0.8 else "a" for g in gold]


def test_figures_by_sums_are_those_of_scikit_learn() -> None:
    for gold, predicted in ((GOLD, PREDICTED), drawn(300)):
        figures = {name: figure.value for name, figure in class_figures(gold, predicted, LABELS).items()}
        rows = classification_report(gold, predicted, LABELS)
        macro, weighted = row(rows, "macro avg"), row(rows, "weighted avg")
        assert figures["accuracy"] == pytest.approx(row(rows, "accuracy").f1)
        assert figures["macro_f1"] == pytest.approx(macro.f1)
        assert figures["macro_precision"] == pytest.approx(macro.precision)
        assert figures["macro_recall"] == pytest.approx(macro.recall)
        assert figures["weighted_f1"] == pytest.approx(weighted.f1)


def test_intervals_agree_with_a_bootstrap_over_items() -> None:
    gold, predicted = drawn(300)
    measured = class_figures(gold, predicted, LABELS)["accuracy"].measured()
    hits = np.array([g == p for g, p in zip(gold, predicted, strict=True)], dtype=float)
    means = hits[np.random.default_rng(5).integers(0, 300, size=(4000, 300))].mean(axis=1)
    assert (measured.low, measured.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.01)


def test_every_class_has_intervals_around_its_ratios() -> None:
    gold, predicted = drawn(300)
    intervals = class_intervals(gold, predicted, LABELS)
    for found in classification_report(gold, predicted, LABELS)[:3]:
        for name in ("precision", "recall", "f1"):
            low, high = intervals[found.name][name]
            value = getattr(found, name)
            assert low <= value <= high
            assert high - low > 0.01 or value == 1  # "a" is always recalled


def test_figures_name_library_version_and_settings() -> None:
    figures = evaluate_classification(GOLD, PREDICTED, LABELS)
    assert figures["accuracy"] == pytest.approx(0.5)
    assert figures["other"] == 1
    methods = figures["methods"]
    assert isinstance(methods, dict)
    assert methods["macro_f1"].startswith("scikit-learn ")
    assert "zero_division=0" in methods["macro_f1"]
    assert len(figures["report_with_other"]) == len(figures["report"]) + 1  # type: ignore[arg-type]
