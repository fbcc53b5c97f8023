"""The published figures are those of the publications: every one is found in our copy of the text."""

import math
import re
from pathlib import Path

import pytest

from loradeck_bench.study.published import Cell, Paper, Part, published, published_studies
from loradeck_registry.errors import NotFoundError

SEEDS = Path(__file__).parents[3].parent / "shared" / "seeds"
STUDIES = ("alpaca", "anyscale", "belle", "econ-it")


def text_of(paper: Paper) -> str:
    path = SEEDS / paper.text
    if not path.is_file():
        pytest.skip("the publications' texts lie in ../shared/seeds, which is not here")
    return path.read_text(encoding="utf-8")


def plain(text: str) -> str:
    """Without the copy's marks and with single spaces."""
    return " ".join(re.sub(r"[\\$]|(?<=\d) (?=\d{3}\b)", "", text).split())


def in_text(cell: Cell, paper: Paper, text: str) -> bool:
    """The quoted words hold it, or a line has the row's head and, behind it, its cells in their order."""
    if cell.quote:
        number = cell.text.replace(",", "")
        return plain(cell.quote) in plain(text) and number in plain(cell.quote).replace(",", "")
    part = paper.parts[cell.part]
    head = plain(part.printed.get(cell.row, cell.row))
    printed = [found.printed for column in part.columns if (found := paper.cell(cell.part, cell.row, column))]
    return any(
        _in_order([head, *map(plain, printed)], plain(line)) or _in_order([head, *printed], line)
        for line in text.splitlines()
    )


def _in_order(words: list[str], line: str) -> bool:
    at = 0
    for word in words:
        found = re.compile(rf"(?<![\w.]){re.escape(word)}(?![\w.])").search(line, at)
        if found is None:
            return False
        at = found.end()
    return True


def test_all_four_publications_are_there() -> None:
    assert tuple(published_studies()) == STUDIES
    assert [published(name).seed for name in STUDIES] == [4, 2, 3, 1]


@pytest.mark.parametrize("name", STUDIES)
def test_every_figure_stands_in_the_text(name: str) -> None:
    paper = published(name)
    text = text_of(paper)
    cells = list(paper.cells())
    assert cells
    assert [f"{cell.part}: {cell.row}: {cell.column}" for cell in cells if not in_text(cell, paper, text)] == []


def test_a_changed_figure_is_not_found() -> None:
    paper = published("econ-it")
    text = text_of(paper)
    tree = paper.model_dump()
    tree["parts"]["table-7"]["rows"]["EdTech"] = ("0.93", "0.9", "0.92", "200")
    changed = Paper.model_validate(tree)
    cell = changed.cell("table-7", "EdTech", "f1-score")
    assert cell is not None
    assert not in_text(cell, changed, text)


@pytest.mark.parametrize(
    ("study", "part", "row", "column", "value"),
    [
        ("belle", "table-4", "LLaMA-13B + LoRA(2M)", "Additional Param.", 28e6),
        ("belle", "table-4", "LLaMA-7B + FT(2M)", "Additional Param.", None),
        ("belle", "appendix", "LLaMA-7B + LoRA(2M)", "classification", 0.676),
        ("belle", "table-2", "Learning rate", "Value", 5e-6),
        ("alpaca", "resources", "Percentage of original parameters trained", "LoRA", 0.14),
        ("alpaca", "resources", "Time per epoch", "LoRA", 42),
        ("alpaca", "hyperparameters", "GPU", "Value", None),
        ("econ-it", "table-6", "Original matrix", "Sizes", None),
    ],
)
def test_values_of_what_is_printed(study: str, part: str, row: str, column: str, value: float | None) -> None:
    cell = published(study).cell(part, row, column)
    assert cell is not None
    assert cell.value == value


def test_categories_of_the_third_study_give_its_averages() -> None:
    paper = published("belle")
    rows = paper.parts["appendix"].rows
    for row, cells in rows.items():
        scores = [float(str(text)) for text in cells[1:-1]]
        assert len(scores) == 9, row
        assert sum(scores) / 9 == pytest.approx(float(str(cells[-1])), abs=0.001), row


def test_classes_of_the_first_study_give_its_averages() -> None:
    for table in ("table-7", "table-8", "table-9"):
        rows = published("econ-it").parts[table].rows
        classes = [name for name in rows if name not in ("accuracy", "macro avg", "weighted avg")]
        for column in (0, 1, 2):
            mean = sum(float(str(rows[name][column])) for name in classes) / len(classes)
            assert mean == pytest.approx(float(str(rows["macro avg"][column])), abs=0.0101), (table, column)


def test_figures_that_cannot_be_right_are_marked_and_say_why() -> None:
    wrong = {(cell.study, cell.part, cell.row) for name in STUDIES for cell in published(name).cells() if cell.wrong}
    assert ("alpaca", "results", "Token accuracy") in wrong
    assert ("econ-it", "parameters", "Original matrix") in wrong
    accuracy = published("alpaca").cell("results", "Token accuracy", "Test")
    assert accuracy is not None
    assert "cannot be right" in accuracy.note
    # What it says: the perplexity stated beside it is that of its loss, the product stated is not that product.
    loss, perplexity = (published("alpaca").cell("results", name, "Test") for name in ("Loss", "Perplexity"))
    assert loss is not None
    assert perplexity is not None
    assert math.exp(loss.value or 0) == pytest.approx(perplexity.value, abs=0.02)
    product = published("econ-it").cell("parameters", "Original matrix", "Number")
    assert product is not None
    assert product.value != 152_064 * 3_584


def test_pictures_are_not_in_our_copy() -> None:
    assert all(published("econ-it").missing(f"figure-{number}") for number in (1, 2, 3, 4))
    assert published("belle").missing("table-1")
    assert not published("belle").missing("table-4")
    assert published("econ-it").cell("figure-2", "AI", "f1-score") is None


def test_a_note_on_a_cell_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no cell"):
        Part.model_validate(
            {"title": "t", "columns": ["a"], "rows": {"r": ["1"]}, "notes": [{"row": "x", "note": "n"}]}
        )


def test_unknown_study_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="alpaca, anyscale, belle, econ-it"):
        published("llama")
