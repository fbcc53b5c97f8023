"""Killed, interrupted and out of space: nothing that was kept is lost, and going on gives the same losses."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from loradeck_train.loop.sealing import complete_checkpoints, keep_newest, write_checkpoint
from loradeck_train.recipe.settings import Recipe
from tests.train.killing_child import die_while_writing, train

pytestmark = pytest.mark.timeout(900)

Build = Callable[..., Recipe]
KILLS = 5
PATIENCE = 120.0


@pytest.fixture(scope="module")
def processes() -> Any:
    """A server that has imported torch and transformers once, and forks a fresh process in no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.killing_child", "peft", "accelerate"])
    return context


@pytest.fixture
def recipe(recipe_of: Build) -> str:
    """Everything random there is: packing, dropout, shuffling, looks at validation rows, the best weights."""
    return recipe_of(
        packing="batch",
        lora={"dropout": 0.1},
        checkpoints={"save_steps": 2},
        data={"validation": {"fraction": 0.2}},
        evaluation={"every_steps": 3},
        optimisation={"max_steps": 60},
    ).model_dump_json(exclude_none=True)


def _start(
    processes: Any, recipe: str, folder: Path, largest_file: int | None = None, hold: int = 0
) -> ForkServerProcess:
    process: ForkServerProcess = processes.Process(target=train, args=(recipe, str(folder), largest_file, hold))
    process.start()
    return process


def _finish(process: ForkServerProcess) -> int:
    process.join(PATIENCE)
    assert process.exitcode is not None
    return process.exitcode


def _steps(folder: Path) -> int:
    path = folder / "out" / "history.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def _written(folder: Path) -> int:
    """When the history was written last, in nanoseconds; 0 without one."""
    path = folder / "out" / "history.jsonl"
    return path.stat().st_mtime_ns if path.is_file() else 0


def _wait(process: ForkServerProcess, until: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while process.is_alive() and not until():
        assert time.monotonic() < end
        time.sleep(0.002)


def _wait_for_steps(process: ForkServerProcess, folder: Path, more_than: int) -> None:
    _wait(process, lambda: _steps(folder) > more_than)


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """Figures of the uninterrupted run, once it has been made."""
    return {}


@pytest.fixture
def whole(processes: Any, recipe: str, kept: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Figures of a run that nothing happened to."""
    if not kept:
        kept.update(_finished(processes, recipe, tmp_path / "whole"))
    return kept


def _finished(processes: Any, recipe: str, folder: Path) -> dict[str, Any]:
    assert _finish(_start(processes, recipe, folder)) == 0
    figures: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return figures


def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(
    processes: Any, recipe: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    dice = random.Random(0)
    killed_at = []
    for _ in range(KILLS):
        before = _written(tmp_path / "killed")
        process = _start(processes, recipe, tmp_path / "killed")
        # What the process before has written is none of its steps.
        _wait(process, lambda before=before: _written(tmp_path / "killed") != before)  # type: ignore[misc]
        # At least one new step each time, so that the run gets on; then any moment, in a step or in a checkpoint.
        _wait_for_steps(process, tmp_path / "killed", _steps(tmp_path / "killed") + dice.randrange(1, 5))
        time.sleep(dice.uniform(0, 0.15))
        if not process.is_alive():
            break
        process.kill()
        _finish(process)
        killed_at.append(_steps(tmp_path / "killed"))
    assert killed_at
    resumed = _finished(processes, recipe, tmp_path / "killed")
    assert resumed == whole
    assert len(resumed["losses"]) == 60
    assert len(resumed["looks"]) == 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_keeps_the_step_it_is_in(
    number: signal.Signals, processes: Any, recipe: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    process = _start(processes, recipe, tmp_path / "asked", hold=40)
    _wait_for_steps(process, tmp_path / "asked", 4)
    assert process.pid is not None
    os.kill(process.pid, number)
    (tmp_path / "asked" / "go").touch()
    assert _finish(process) == 3
    said = (tmp_path / "asked" / "error.txt").read_text()
    assert number.name in said
    assert "--resume" in said
    kept = complete_checkpoints(tmp_path / "asked" / "out" / "checkpoints")[-1]
    history = (tmp_path / "asked" / "out" / "history.jsonl").read_text().splitlines()
    assert int(kept.name.rpartition("-")[2]) == max(json.loads(line)["step"] for line in history)
    assert _finished(processes, recipe, tmp_path / "asked") == whole


def test_full_disk_is_one_line_and_loses_no_checkpoint(
    processes: Any, recipe: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    process = _start(processes, recipe, tmp_path / "full")
    _wait_for_steps(process, tmp_path / "full", 6)
    process.kill()
    _finish(process)
    before = complete_checkpoints(tmp_path / "full" / "out" / "checkpoints")
    assert _finish(_start(processes, recipe, tmp_path / "full", largest_file=20_000)) == 4
    said = (tmp_path / "full" / "error.txt").read_text()
    assert said.startswith("DISK_FULL: cannot write")
    assert "--resume" in said
    assert len(said.splitlines()) == 1
    assert complete_checkpoints(tmp_path / "full" / "out" / "checkpoints") == before
    assert not list((tmp_path / "full" / "out" / "checkpoints").glob(".writing-*"))
    assert _finished(processes, recipe, tmp_path / "full") == whole


@pytest.mark.parametrize("after", range(5))
def test_checkpoint_cut_short_by_a_kill_is_not_there(after: int, processes: Any, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, lambda aside: (aside / "a").write_text("whole") and None)
    process = processes.Process(target=die_while_writing, args=(str(tmp_path), after))
    process.start()
    assert _finish(process) == -signal.SIGKILL
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["checkpoint-1"]
    keep_newest(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_checkpoint_with_a_shorter_file_is_not_whole(tmp_path: Path) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, lambda aside: (aside / "a").write_text("whole") and None)
    (tmp_path / "checkpoint-2" / "a").write_text("who")
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["checkpoint-1"]
