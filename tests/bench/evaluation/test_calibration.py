"""Calibration against examples computed by hand."""

import pytest

from loradeck_bench.evaluation.calibration import BINS, calibration


def test_expected_calibration_error_matches_hand_computation() -> None:
    # Bin 0.9..1: two answers at 0.9 and 1.0, one right: |0.95 - 0.5|. Bin 0.6..0.7: 0.6, right: |0.6 - 1|.
    figures, _ = calibration([True, False, True], [0.9, 1.0, 0.6])
    assert figures["ece"].value == pytest.approx(2 / 3 * 0.45 + 1 / 3 * 0.4)
    assert figures["brier"].value == pytest.approx((0.1**2 + 1 + 0.4**2) / 3)
    assert figures["mean_confidence"].value == pytest.approx(2.5 / 3)


def test_calibrated_answers_have_no_error() -> None:
    figures, _ = calibration([True] * 8 + [False] * 2, [0.8] * 10)
    assert figures["ece"].value == pytest.approx(0.0)
    assert figures["ece"].measured().low == pytest.approx(0.0, abs=0.05)


def test_curve_has_every_bin_and_exact_intervals() -> None:
    _, bins = calibration([True, False, True], [0.95, 0.95, 0.0])
    assert [one["count"] for one in bins] == [1, *[0] * (BINS - 2), 2]
    assert "accuracy" not in bins[1]
    last = bins[-1]
    assert (last["accuracy"], last["confidence"]) == pytest.approx((0.5, 0.95))
    assert last["interval"] == pytest.approx([0.0126, 0.9874], abs=1e-4)  # Clopper-Pearson, 1 of 2


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_impossible_probability_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="outside 0 to 1"):
        calibration([True], [confidence])
