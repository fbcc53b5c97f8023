"""Study files: the shipped ones parse, scales are laid over the rest, mistakes are named."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loradeck_bench.study.files import SCALES, Scale, find_study, load_study, merged, shipped_studies
from loradeck_bench.study.place import Place
from loradeck_bench.study.plan import Plan
from loradeck_bench.study.published import published
from loradeck_registry.errors import InvalidError, NotFoundError

from .conftest import Tree, resolve


def test_studies_are_shipped() -> None:
    assert {"alpaca", "econ-it"} <= set(shipped_studies())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_study_parses_with_all_its_recipes(name: str, scale: Scale, tmp_path: Path) -> None:
    file = find_study(name)
    study = load_study(file, scale)
    plan = Plan(study, file, Place(tmp_path, name, scale), resolve)
    assert study.runs
    assert study.tables
    assert study.differs, "a study says what differs from its publication"
    if scale == "pocket":
        blocked = {step.id for step in plan.steps.values() if step.blocked and "judge" not in step.blocked}
        assert not [step for step in blocked if "is not installed" not in str(plan.steps[step].blocked)]


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_study_has_every_published_table_and_figure(name: str) -> None:
    study = load_study(find_study(name), "full")
    paper = published(study.published)
    shown = {part.id: part for part in (*study.tables, *study.figures)}
    assert set(paper.parts) <= set(shown)
    for table in study.tables:
        if table.id in paper.parts and table.each is None:
            missing = set(paper.parts[table.id].rows) - {row.name for row in table.rows}
            assert not missing, f"{table.id} leaves out {missing}"
            missing = set(paper.parts[table.id].columns) - {column.name for column in table.columns}
            assert not missing, f"{table.id} leaves out {missing}"


def test_documented_study_parses_with_its_recipes(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "studies.md"
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    file = tmp_path / "documented.yaml"
    file.write_text(block)
    plan = Plan(load_study(file, "pocket"), file, Place(tmp_path, "documented", "pocket"), resolve)
    assert list(plan.steps)[:4] == ["bases/main", "runs/lora", "runs/full", "runs/again"]


def test_scale_is_laid_over_the_rest(tree: Tree, write: Callable[[Tree], Path]) -> None:
    tree["scales"]["pocket"] = {"runs": {"lora": {"set": {"seed": 3, "optimisation.epochs": None}}, "on-full": None}}
    study = load_study(write(tree), "pocket")
    assert study.runs["lora"].set == {"seed": 3, "optimisation.epochs": None}, "null is a value among settings"
    assert "on-full" not in study.runs, "null takes away elsewhere"
    assert load_study(write(tree), "full").bases["main"].source == "hub:Qwen/Qwen2-7B"


def test_merging_leaves_both_sides_as_they_were() -> None:
    low: dict[str, Any] = {"a": {"b": 1, "c": 2}}
    assert merged(low, {"a": {"b": None, "d": 3}}) == {"a": {"c": 2, "d": 3}}
    assert low == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runs": {"lora": {"recipe": "pocket/clf-lora", "dat": "texts"}}}, "runs.lora.dat"),
        ({"servers": {"main": {"base": "mian"}}}, "mian"),
        ({"evaluations": {"tests": {"kind": "compare", "of": ["lora", "nobody"]}}}, "nobody"),
        ({"tables": [{"id": "x", "title": "x", "columns": [{"name": "a"}], "rows": []}]}, "rows"),
        ({"cards": [{"label": "f1", "of": "evaluations/nobody", "key": "macro_f1"}]}, "evaluations/nobody"),
        ({"runs": {"main": {"recipe": "pocket/clf-lora"}}}, "different names"),
        ({"runs": {"full": {"base": "run:on-full"}}}, "circle"),
    ],
)
def test_mistake_is_named(tree: Tree, write: Callable[[Tree], Path], change: Tree, said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        load_study(write(merged(tree, change)), "pocket")
    assert caught.value.reason == "BAD_STUDY"
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("title: a\ntitle: b\n")
    with pytest.raises(InvalidError, match="title"):
        load_study(path, "pocket")


def test_unknown_study_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="alpaca, anyscale, belle, econ-it"):
        find_study("alpacca")
