"""GSM8K's two ways to read an answer."""

from decimal import Decimal

import pytest

from loradeck_bench.evaluation.structured.gsm8k import flexible, gsm8k, strict


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so it is\n#### 18", 18),
        ("#### 1\nno:\n#### $1,234.50", Decimal("1234.50")),
        ("#### -5", -5),
        ("#### $ 18.", 18),
        ("#### 18.00 dollars", 18),
        ("#### 7/14", None),
        ("#### about 18", None),
        ("18", None),
        ("####", None),
    ],
)
def test_strict_takes_the_number_behind_the_last_marker(text: str, number: object) -> None:
    assert strict(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7 eggs.", 7),
        ("it costs $1,250 in all", 1250),
        ("she has -2 left", -2),
        ("step 1: he runs 3.5 miles", Decimal("3.5")),
        ("none", None),
    ],
)
def test_flexible_takes_the_last_number(text: str, number: object) -> None:
    assert flexible(text) == number


def test_both_are_reported_with_the_share_that_has_the_marker() -> None:
    figures = gsm8k(["The answer is 18", "#### 18", "#### 17 or 18"], ["9 * 2\n#### 18", "18", "$18"])
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(
        {"gsm8k_strict": 1 / 3, "gsm8k_flexible": 1.0, "gsm8k_marked": 2 / 3}
    )


def test_reference_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no number behind"):
        gsm8k(["#### 1"], ["eighteen"])
