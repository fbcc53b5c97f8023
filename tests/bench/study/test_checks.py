"""What a full study lacks is found before it starts, each with the command that brings it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loradeck_bench.study.checks import missing_parts
from loradeck_bench.study.outcomes import Outcome, Outcomes
from loradeck_bench.study.plan import Judge, Plan
from loradeck_bench.study.state import State
from tests.bench.evaluation.judge_server import judge_server

from .conftest import Tree

LORADECK = [sys.executable, "-m", "loradeck_cli.main"]


def without_runs(tree: Tree) -> Tree:
    """Only the base and its evaluation, so that no training has to be planned."""
    kept = {key: tree[key] for key in ("title", "about", "bases", "data", "scales")}
    base = {**tree["evaluations"]["base"], "embedding": True}
    return {**kept, "servers": {"main": {"base": "main"}}, "evaluations": {"base": base}}


def missing(plan: Plan) -> dict[str, str]:
    return {one.what: one.get for one in missing_parts(plan, State(plan, Outcomes(plan.place.outcomes)))}


def test_missing_weights_data_and_models_come_with_their_commands(
    tree: Tree, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    tree["data"]["texts"] = {"what": "nine classes", "sources": [{"test": "test.jsonl"}], "get": "bring --them"}
    found = missing(planned(without_runs(tree), "full"))
    assert found["weights of Qwen/Qwen2-7B"] == "hf download Qwen/Qwen2-7B"
    assert found["no data texts (nine classes)"] == "bring --them"
    assert any("BERTScore" in what for what in found)


def test_pocket_scale_lacks_nothing_here(tree: Tree, planned: Callable[..., Plan]) -> None:
    assert missing(planned(without_runs(tree))) == {}


def test_judge_that_does_not_answer_is_missing(tree: Tree, planned: Callable[..., Plan]) -> None:
    judged = without_runs(tree)
    judged["evaluations"]["judged"] = {"kind": "judge", "of": "base"}
    with judge_server() as server:
        assert missing(planned(judged, judge=Judge(server.url, "grader"))) == {}
    plan = planned(judged, judge=Judge(server.url, "grader"))
    assert missing(plan) == {f"a judge at {server.url}: nothing answers there": "start it, or --judge URL"}
    step = plan.steps["evaluations/judged"]
    Outcomes(plan.place.outcomes).put(step.id, Outcome(step.digest, {}, 1.0, 1.0, ""))
    assert missing(plan) == {}, "nothing is left for the judge"


def test_base_folder_that_is_not_there_is_named(tree: Tree, planned: Callable[..., Plan]) -> None:
    tree["scales"]["full"] = {"bases": {"main": {"source": "dir:/nowhere/model"}}}
    assert "--base main=REF" in missing(planned(without_runs(tree), "full"))["the base folder /nowhere/model"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_full_study_that_does_not_fit_says_so_and_starts_nothing(
    tree: Tree, write: Callable[[Tree], Path], tmp_path: Path
) -> None:
    full = {"recipe": "econ-it/clf-full", "base": "main", "data": "texts"}
    # More than any machine that runs tests has.
    tree["scales"]["full"]["bases"]["main"]["source"] = "hub:meta-llama/Llama-2-70b-hf"
    study = write({**without_runs(tree), "runs": {"full": full}})
    command = [*LORADECK, "study", "run", str(study), "--scale", "full", "--work", str(tmp_path / "work")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert found.returncode == 1, found.stderr
    assert "memory for full:" in found.stdout
    assert "weights of meta-llama/Llama-2-70b-hf" in found.stdout
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1
    assert not (tmp_path / "work" / "small" / "full" / "registry").exists()

    command = [*LORADECK, "study", "status", str(study), "--scale", "full", "--work", str(tmp_path / "work")]
    said = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, timeout=200, check=True).stdout
    steps = {step["step"]: step for step in json.loads(said)["steps"]}
    assert steps["runs/full"]["estimate"] > 3600, "two epochs of 9,000 rows on 70 billion parameters"
