"""The commands that a study starts are commands that there are: every option and value is accepted, nothing is run."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from loradeck_bench.demo.progress import Progress
from loradeck_bench.demo.server import Server
from loradeck_bench.study import evaluations, trainings
from loradeck_bench.study.files import SCALES, Scale, find_study, load_study, shipped_studies
from loradeck_bench.study.format.work import Served
from loradeck_bench.study.outcomes import Outcomes
from loradeck_bench.study.place import Place
from loradeck_bench.study.plan import Judge, Plan, Planned
from loradeck_bench.study.work import Work
from loradeck_cli.main import loradeck

from .conftest import Tree, put, resolve


class Recorded(Exception):
    """Instead of a process: what would have been started."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments


def accepted(arguments: list[str]) -> None:
    """Parse a command as the command line does. Raises click's errors."""
    command: click.Command = loradeck
    context = click.Context(loradeck, info_name="loradeck")
    rest = list(arguments)
    while isinstance(command, click.Group):
        name, below, rest = command.resolve_command(context, rest)
        assert below is not None, arguments
        command, context = below, click.Context(below, parent=context, info_name=name)
    command.make_context(command.name, rest)


def recorded(start: Callable[[], Any]) -> list[str]:
    with pytest.raises(Recorded) as caught:
        start()
    return caught.value.arguments


def everything_done(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A study whose steps are all done, where starting a command only records it."""

    def start(self: Work, step: Planned, arguments: list[str], **how: Any) -> Any:
        raise Recorded(arguments)

    monkeypatch.setattr(Work, "start", start)
    for step in plan.steps:
        put(plan, step, {"reference": f"{step.partition('/')[2]}@sha256:{'0' * 64}"})
    return Work(plan, Outcomes(plan.place.outcomes), Progress(Console(file=io.StringIO()), []))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", shipped_studies())
def test_every_command_of_a_shipped_study_is_accepted(
    name: str, scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = find_study(name)
    judge = Judge("http://127.0.0.1:1/v1", "some-model")
    plan = Plan(load_study(file, scale), file, Place(tmp_path, name, scale), resolve, judge, tmp_path)
    work = everything_done(plan, monkeypatch)
    checked = 0
    for step in plan.of("runs"):
        if step.blocked is None:
            accepted(recorded(lambda step=step: trainings._start(work, step)))
            checked += 1
    for step in plan.of("evaluations"):
        one = plan.study.evaluations[step.name]
        if step.blocked is not None:
            continue
        if isinstance(one, Served):
            server = Server(None, "127.0.0.1:1", "", "", "", 0.0)  # type: ignore[arg-type]
            arguments = recorded(lambda step=step, server=server: evaluations._served(work, step, server))
        else:
            arguments = [*evaluations._arguments(work, one), "--json", str(tmp_path / "out.json")]
        accepted(arguments)
        checked += 1
    assert checked or scale == "full"


def test_judge_is_asked_about_the_answers_of_its_evaluation(
    tree: Tree, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tree, judge=Judge("http://127.0.0.1:1/v1", "some-model"))
    work = everything_done(plan, monkeypatch)
    arguments = evaluations._arguments(work, plan.study.evaluations["judged"])
    accepted(arguments)
    assert Path(arguments[2]) == plan.place.answers("lora", plan.steps["evaluations/lora"].digest)
    assert Path(arguments[2]).stem == "lora", "the name that a comparison shows"


def test_figures_of_an_adapter_go_to_its_revision_and_those_of_the_base_nowhere(
    tree: Tree, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tree)
    work = everything_done(plan, monkeypatch)
    server = Server(None, "127.0.0.1:1", "", "", "", 0.0)  # type: ignore[arg-type]
    lora = recorded(lambda: evaluations._served(work, plan.steps["evaluations/lora"], server))
    base = recorded(lambda: evaluations._served(work, plan.steps["evaluations/base"], server))
    assert f"lora@sha256:{'0' * 64}" in lora
    assert "--attach" in lora
    assert "--base" in base
    assert "--attach" not in base
