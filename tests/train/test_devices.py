"""Two processes train what one process trains, sharded or not, and go on exactly after a kill."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from safetensors.torch import load_file

from loradeck_cli.main import loradeck
from loradeck_registry.errors import PreconditionError
from loradeck_train.loop.sealing import complete_checkpoints
from loradeck_train.loop.world import join
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import run
from tests.support.ports import free_ports
from tests.train.devices_child import take_part

pytestmark = pytest.mark.timeout(900)

Build = Callable[..., Recipe]
PATIENCE = 120.0


@pytest.fixture(scope="module")
def processes() -> Any:
    """A server that has imported torch and transformers once, and forks a fresh process in no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.devices_child", "loradeck_train.run", "peft", "accelerate"])
    return context


class Launch:
    """The processes of one run, started."""

    def __init__(
        self, processes: Any, recipe: Recipe, output: Path, size: int, sharding: str = "", resume: bool = False,
        hold: int = 0,
    ) -> None:  # fmt: skip
        self.output = output
        port, text = free_ports(1)[0], recipe.model_dump_json(exclude_none=True)
        self.processes: list[ForkServerProcess] = [
            processes.Process(target=take_part, args=(text, str(output), rank, size, port, sharding, resume, hold))
            for rank in range(size)
        ]
        for process in self.processes:
            process.start()

    def finish(self) -> list[int | None]:
        """Exit codes; a process that hangs is ended."""
        end = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        return [process.exitcode for process in self.processes]

    def figures(self) -> dict[str, Any]:
        """What the first process measured, once all are done."""
        assert self.finish() == [0] * len(self.processes)
        found: dict[str, Any] = json.loads(self.output.with_suffix(".json").read_text())
        return found

    def wait_for_steps(self, more_than: int) -> None:
        """Until the history has that many lines."""
        path, end = self.output / "history.jsonl", time.monotonic() + PATIENCE
        while not path.is_file() or len(path.read_text().splitlines()) <= more_than:
            assert all(process.is_alive() for process in self.processes)
            assert time.monotonic() < end
            time.sleep(0.005)


METHODS = {
    "lora": {},
    "full": {"method": "full", "lora": None},
    "lora-packed-bf16": {"packing": "batch", "precision": "bf16", "gradient_checkpointing": True},
}


@pytest.fixture(scope="module")
def of_one() -> dict[str, Any]:
    """Figures and weights of the run of one process, by method."""
    return {}


@pytest.mark.parametrize(
    ("method", "sharding", "base"),
    [
        ("lora", "", "tied_base"),
        ("lora", "fsdp", "tied_base"),
        ("full", "fsdp", "tied_base"),
        ("full", "", "tied_base"),
        ("lora-packed-bf16", "fsdp", "untied_base"),
    ],
)
def test_two_processes_equal_one(
    method: str,
    sharding: str,
    base: str,
    processes: Any,
    recipe_of: Build,
    of_one: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    def recipe(size: int) -> Recipe:
        # Thirty-six rows: six groups of six, whoever trains them.
        return recipe_of(
            **METHODS[method],
            base=f"dir:{request.getfixturevalue(base)}",
            optimisation={"batch_size": 6 // size, "max_steps": 8},
            data={"validation": {"source": str(tmp_path / "rows.jsonl")}},
            evaluation={"every_steps": 3},
        )

    def weights(output: Path) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = load_file(next((output / "published").glob("*model.safetensors")))
        return found

    if method not in of_one:
        of_one[method] = (
            Launch(processes, recipe(1), tmp_path / "one", 1).figures(),
            weights(tmp_path / "one"),
        )
    one, whole = of_one[method]
    two = Launch(processes, recipe(2), tmp_path / "two", 2, sharding).figures()
    close = 2e-2 if "bf16" in method else 1e-3
    assert two["losses"] == pytest.approx(one["losses"], rel=close)
    assert two["looks"] == pytest.approx(one["looks"], rel=close)
    assert two["losses"][-1] < 0.9 * two["losses"][0]
    assert two["tokens"] == one["tokens"]
    parts = weights(tmp_path / "two")
    assert parts.keys() == whole.keys()
    for name, tensor in whole.items():
        assert tensor.numel() > 0
        torch.testing.assert_close(parts[name], tensor, rtol=5e-2, atol=2e-3 if close < 0.01 else 4e-2, msg=name)
    assert not list((tmp_path / "two").glob(".rank-*"))


@pytest.mark.parametrize("sharding", ["", "fsdp"])
def test_killed_or_stopped_they_go_on_exactly(sharding: str, processes: Any, recipe_of: Build, tmp_path: Path) -> None:
    recipe = recipe_of(
        lora={"dropout": 0.1},
        checkpoints={"save_steps": 3},
        data={"validation": {"fraction": 0.2}},
        evaluation={"every_steps": 4},
        optimisation={"max_steps": 40, "batch_size": 3},
    )
    whole = Launch(processes, recipe, tmp_path / "whole", 2, sharding).figures()
    killed = Launch(processes, recipe, tmp_path / "cut", 2, sharding, hold=5)
    killed.wait_for_steps(4)
    for process in killed.processes:
        process.kill()
    killed.finish()
    # One of them is asked to stop: all stop after the same step, and keep it.
    stopped = Launch(processes, recipe, tmp_path / "cut", 2, sharding, resume=True, hold=10)
    stopped.wait_for_steps(8)
    pid = stopped.processes[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    (tmp_path / "cut.go").touch()
    assert stopped.finish() == [1, 1]
    kept = complete_checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    assert {path.name for path in kept.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    last = [json.loads(line) for line in (tmp_path / "cut" / "history.jsonl").read_text().splitlines()][-1]
    assert kept.name == f"checkpoint-{last['step']}"
    # One process alone sees other rows: its losses would be others.
    with pytest.raises(PreconditionError, match="another launch") as caught:
        run(recipe, None, tmp_path / "cut", resume=True, console=Console(quiet=True))
    assert caught.value.reason == "RESUME_MISMATCH"
    resumed = Launch(processes, recipe, tmp_path / "cut", 2, sharding, resume=True).figures()
    assert len(resumed["losses"]) == 40
    assert resumed == whole


@pytest.mark.slow
def test_accelerate_launches_a_sharded_run(recipe_of: Build, tmp_path: Path) -> None:
    recipe, figures = tmp_path / "recipe.yaml", tmp_path / "figures.json"
    recipe.write_text(recipe_of(optimisation={"max_steps": 4}).model_dump_json(exclude_none=True))
    config = CliRunner().invoke(loradeck, ["train", "launcher", "fsdp"]).output.strip()
    command = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", 2]
    command += ["--main_process_port", free_ports(1)[0], "-m", "loradeck_cli.main", "train", "run", recipe]
    command += ["--output", tmp_path / "out", "--json", figures]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(figures.read_text())
    assert found["steps"] == 4
    assert found["processes"] == 2
    assert found["sharding"] == "fsdp"


@pytest.mark.parametrize(
    ("variable", "size", "reason"),
    [
        ("ACCELERATE_USE_FSDP", 1, "BAD_LAUNCH"),
        ("ACCELERATE_USE_DEEPSPEED", 1, "BAD_LAUNCH"),
        ("ACCELERATE_USE_DEEPSPEED", 2, "DEEPSPEED_UNUSABLE"),
    ],
)
def test_launch_that_cannot_work_is_refused(
    variable: str, size: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("WORLD_SIZE", str(size))
    with pytest.raises(PreconditionError) as caught:
        join()
    assert caught.value.reason == reason
