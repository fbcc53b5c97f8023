"""ViGGO's meaning representations: parsed, and compared without regard to order."""

import csv
import io
from pathlib import Path

import pytest

from loradeck_bench.evaluation.structured.viggo import parse_meaning, viggo

GOLD = "inform(name[Doom], genres[action, shooter], developer[id, Inc.], esrb[M (for Mature)])"
SHARED = Path(__file__).parents[4] / "shared" / "data" / "viggo"


def values(answer: str, reference: str = GOLD) -> dict[str, float]:
    return {name.removeprefix("viggo_"): figure.value for name, figure in viggo([answer], [reference]).items()}


def test_order_of_slots_and_of_list_values_does_not_count() -> None:
    figures = values("inform(esrb[m (for mature)], developer[id,  Inc.], genres[shooter,action], name[Doom])")
    assert set(figures.values()) == {1.0}


def test_wrong_and_missing_slots_count_apart_from_the_function() -> None:
    figures = values("inform(name[Doom], genres[action], rating[good])")
    assert (figures["function"], figures["exact"]) == (1.0, 0.0)
    assert figures["slot_precision"] == pytest.approx(1 / 3)
    assert figures["slot_recall"] == pytest.approx(1 / 4)
    assert figures["slot_f1"] == pytest.approx(2 / 7)


def test_comma_in_a_name_is_no_list() -> None:
    assert (
        values("inform(name[Doom], genres[action, shooter], developer[Inc., id], esrb[M (for Mature)])")["exact"] == 0
    )


@pytest.mark.parametrize("answer", ["", "It is Doom.", "inform(name[Doom]", "inform(name[Doom] genres[action])", "x"])
def test_answer_that_does_not_parse_has_nothing_right(answer: str) -> None:
    assert set(values(answer).values()) == {0.0}


def test_empty_value_and_no_slot_are_meanings() -> None:
    assert parse_meaning("request_attribute(esrb[])") is not None
    assert values("confirm()", "confirm()")["exact"] == 1.0


def test_reference_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="not of the form"):
        viggo(["x"], ["a sentence"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the ViGGO data, which the project does not ship")
def test_every_representation_of_the_data_set_parses() -> None:
    files = [(SHARED / f"{split}.csv").read_text(encoding="utf-8") for split in ("train", "valid", "test")]
    meanings = [row["mr"] for text in files for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert len(meanings) == 6900
    assert [text for text in meanings if parse_meaning(text) is None] == []
