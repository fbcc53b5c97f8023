"""Plans and states: digests follow inputs, edits redo only what they change, what cannot be done says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loradeck_bench.study.files import merged
from loradeck_bench.study.outcomes import Outcome, Outcomes
from loradeck_bench.study.plan import Judge, Plan
from loradeck_bench.study.state import State
from loradeck_registry.errors import InvalidError, NotFoundError

from .conftest import REPORT, Tree, put

Planned = Callable[..., Plan]


def changed(before: Plan, after: Plan) -> set[str]:
    return {name for name, step in after.steps.items() if step.digest != before.steps[name].digest}


def test_steps_come_after_what_they_need(tree: Tree, planned: Planned) -> None:
    tree["runs"] = {name: tree["runs"][name] for name in ("on-full", "lora", "full")}
    order = list(planned(tree).steps)
    assert order.index("runs/full") < order.index("runs/on-full")
    assert order.index("evaluations/full") < order.index("evaluations/tests")


def test_same_file_gives_the_same_digests(tree: Tree, planned: Planned) -> None:
    assert changed(planned(tree), planned(tree)) == set()


@pytest.mark.parametrize(
    ("edit", "redone"),
    [
        (
            {"runs": {"lora": {"set": {"seed": 1}}}},
            {"runs/lora", "evaluations/lora", "evaluations/tests", "evaluations/judged"},
        ),
        (
            {"runs": {"full": {"set": {"optimisation.epochs": 1}}}},
            {"runs/full", "runs/on-full", "evaluations/full", "evaluations/tests"},
        ),
        ({"evaluations": {"base": {"limit": 9}}}, {"evaluations/base"}),
        ({"servers": {"full": {"set": {"slots": 0}}}}, {"evaluations/full", "evaluations/tests"}),
        ({"title": "another title", "runs": {"lora": {"title": "another"}}}, set()),
    ],
)
def test_edit_redoes_only_what_depends_on_it(tree: Tree, planned: Planned, edit: Tree, redone: set[str]) -> None:
    assert changed(planned(tree), planned(merged(tree, edit))) == redone


def test_changed_data_file_redoes_its_runs(tree: Tree, planned: Planned, tmp_path: Path) -> None:
    folder = tmp_path / "work" / "small" / "data"
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text('{"text": "a", "label": "x"}\n')
    tree["data"]["texts"]["sources"].insert(0, {"train": "train.jsonl", "test": "test.jsonl"})
    before = planned(tree)
    assert before.sources["texts"] is not None
    assert str(before.sources["texts"].test).endswith("test.jsonl"), "files that are there come before the fallback"
    (folder / "test.jsonl").write_text('{"text": "b", "label": "x"}\n')
    from loradeck_bench.study.inputs import _content

    _content.cache_clear()
    after = planned(tree)
    assert {one for one in changed(before, after) if one.startswith("runs/")} == set()
    assert "evaluations/lora" in changed(before, after)


def test_missing_data_block_what_needs_them_and_say_how_to_get_them(tree: Tree, planned: Planned) -> None:
    tree["data"]["texts"]["sources"] = [{"train": "nowhere.jsonl"}]
    plan = planned(tree)
    assert "loradeck study data small" in str(plan.steps["runs/lora"].blocked)
    state = State(plan, Outcomes(plan.place.outcomes))
    assert state.steps["evaluations/tests"].state == "blocked"
    assert [one.step.id for one in state.left()] == ["bases/main"]


def test_database_of_a_data_set_fills_the_options_that_name_it(tree: Tree, planned: Planned) -> None:
    tree["data"]["texts"]["sources"][0]["database"] = "pocket:queries/tables.sqlite"
    before = planned(tree)
    tree["evaluations"]["base"]["options"] = ["--database", "${texts.database}"]
    plan = planned(tree)
    file = plan.names()["texts.database"]
    assert Path(file).is_file()
    assert plan.steps["evaluations/base"].inputs["evaluation"]["options"] == ["--database", file]
    assert changed(before, plan) == {"evaluations/base"}, "who does not name it is not touched by it"
    tree["data"]["texts"]["sources"][0]["database"] = "pocket:queries/none.sqlite"
    assert "no data texts" in str(planned(tree).steps["evaluations/base"].blocked)


def test_missing_package_blocks_its_run_alone(tree: Tree, planned: Planned) -> None:
    tree["runs"]["lora"] |= {"needs": ["no_such_package"], "get": "pip install it"}
    plan = planned(tree)
    assert plan.steps["runs/lora"].blocked == "no_such_package is not installed: pip install it"
    states = State(plan, Outcomes(plan.place.outcomes)).steps
    assert (states["evaluations/lora"].state, states["evaluations/full"].state) == ("blocked", "left")


def test_judge_is_part_of_what_was_judged(tree: Tree, planned: Planned) -> None:
    assert "--judge" in str(planned(tree).steps["evaluations/judged"].blocked)
    first = planned(tree, judge=Judge("http://one/v1", "a"))
    second = planned(tree, judge=Judge("http://one/v1", "b"))
    assert first.steps["evaluations/judged"].blocked is None
    assert changed(first, second) == {"evaluations/judged"}


def test_wrong_recipe_key_names_the_run(tree: Tree, planned: Planned) -> None:
    tree["runs"]["full"]["set"] = {"optimisation.epoch": 1}
    with pytest.raises(InvalidError, match=r"runs\.full.*epoch"):
        planned(tree)


def test_unknown_recipe_names_the_run(tree: Tree, planned: Planned) -> None:
    tree["runs"]["full"]["recipe"] = "pocket/clf-fulll"
    with pytest.raises(NotFoundError, match=r"runs\.full.*pocket/clf-full"):
        planned(tree)


def test_unknown_placeholder_is_refused(tree: Tree, planned: Planned) -> None:
    tree["runs"]["full"]["set"] = {"data.source": "${texst.train}"}
    with pytest.raises(InvalidError, match="texst"):
        planned(tree)


def test_what_is_left_counts_down(tree: Tree, planned: Planned) -> None:
    plan = planned(tree)
    outcomes = Outcomes(plan.place.outcomes)
    before = State(plan, outcomes)
    assert before.seconds_left() == (90.0, 4), "30 + 50 trainings and 10 of an evaluation; four steps say nothing"
    put(plan, "runs/lora", {"reference": "lora@sha256:0"}, seconds=31.0, wall=33.0)
    after = State(plan, outcomes)
    assert after.seconds_left() == (60.0, 4)
    assert (after.steps["runs/lora"].state, after.wall_seconds()) == ("done", 33.0)


def test_estimate_is_what_the_step_took_before_its_inputs_changed(tree: Tree, planned: Planned) -> None:
    put(planned(tree), "runs/lora", {}, seconds=77.0)
    tree["runs"]["lora"]["set"] = {"seed": 5}
    plan = planned(tree)
    assert State(plan, Outcomes(plan.place.outcomes)).steps["runs/lora"].estimate == 77.0


def test_going_back_to_former_inputs_finds_the_former_outcome(tree: Tree, planned: Planned) -> None:
    first = planned(tree)
    put(first, "evaluations/base", REPORT)
    put(planned(merged(tree, {"evaluations": {"base": {"limit": 9}}})), "evaluations/base", {"accuracy": 0.1})
    again = State(planned(tree), Outcomes(first.place.outcomes)).steps["evaluations/base"]
    assert again.outcome is not None
    assert again.outcome.result["accuracy"] == 0.5


@pytest.mark.parametrize("damage", ["", "{", '{"digest": "x"}'])
def test_outcome_that_is_not_whole_counts_as_not_done(tmp_path: Path, damage: str) -> None:
    outcomes = Outcomes(tmp_path)
    outcomes.put("runs/a", Outcome("d", {"x": 1}, 1.0, 1.0, "now"))
    assert outcomes.get("runs/a", "d") is not None
    (tmp_path / "runs" / "a" / "d.json").write_text(damage)
    assert outcomes.get("runs/a", "d") is None
    assert outcomes.last_seconds("runs/a") is None


def test_second_runner_is_kept_out(tree: Tree, planned: Planned) -> None:
    place: Any = planned(tree).place
    with place.held(), pytest.raises(Exception, match="another run"), place.held():
        pass
