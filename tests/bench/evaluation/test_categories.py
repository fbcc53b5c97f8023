"""Figures by category and their macro average."""

import pytest

from loradeck_bench.evaluation.answers import chrf, exact_match
from loradeck_bench.evaluation.categories import by_category
from loradeck_bench.evaluation.figure import mean
from loradeck_bench.evaluation.scoring import score
from loradeck_bench.tables import category_table

ROWS = [
    {"prompt": "a", "reference": "On Monday.", "category": "extract"},
    {"prompt": "b", "reference": "On Friday.", "category": "Extract"},
    {"prompt": "c", "reference": "A red lamp.", "category": "rewrite"},
    {"prompt": "d", "reference": "A cup of tea.", "category": "rewrite"},
    {"prompt": "e", "reference": "", "category": "generation"},
]
ANSWERS = {0: "On Monday.", 1: "On Friday.", 2: "A red lamp.", 3: "Nothing of it", 4: "anything"}


def test_every_category_has_its_own_figures_and_the_macro_average_is_their_mean() -> None:
    figures = score("generate", ROWS, ANSWERS, metrics=[exact_match, chrf]).figures
    table = figures["by_category"]
    assert {name: row["rows"] for name, row in table.items()} == {"extract": 2, "rewrite": 2}
    assert table["extract"]["exact_match"] == 1
    assert table["rewrite"]["exact_match"] == 0.5
    assert figures["macro"]["exact_match"] == 0.75
    own = chrf(["A red lamp.", "Nothing of it"], ["A red lamp.", "A cup of tea."])["chrf"]
    assert table["rewrite"]["chrf"] == pytest.approx(own.value)
    assert (table["extract"]["prompt_words"], table["extract"]["reference_words"]) == (1, 2)
    assert category_table(figures).row_count == 3


def test_macro_average_counts_categories_not_rows() -> None:
    figures = {"score": mean([1, 1, 1, 0], "by hand")}
    found = by_category(figures, ["a", "a", "a", "b"])
    assert found["macro"]["score"] == 0.5
    assert found["macro"]["intervals"]["score"] == [0.5, 0.5]


def test_intervals_of_categories_hold_their_figures() -> None:
    figures = {"score": mean([0, 1] * 20 + [1, 1, 1, 0] * 10, "by hand")}
    found = by_category(figures, ["a"] * 40 + ["b"] * 40)
    low, high = found["by_category"]["a"]["intervals"]["score"]
    assert 0.3 < low < 0.5 < high < 0.7
    macro_low, macro_high = found["macro"]["intervals"]["score"]
    assert macro_high - macro_low < high - low


def test_one_category_is_no_breakdown() -> None:
    assert by_category({"score": mean([0, 1], "by hand")}, ["", ""]) == {}
