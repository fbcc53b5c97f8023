"""Two processes that share every batch train what one process trains."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from loradeck_registry.errors import UnimplementedError
from loradeck_train.loop.world import refuse_sharding


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _run(recipe: Path, output: Path, processes: int) -> dict[str, Any]:
    figures = output.with_suffix(".json")
    command = ["-m", "loradeck_cli.main", "train", "run", recipe, "--output", output, "--json", figures]
    if processes > 1:
        launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", processes]
        launcher += ["--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no"]
        # The launcher knows several processes of a CPU by MPI alone; this one starts them, and the run takes the CPU.
        command = ["-m", *launcher, "--main_process_port", _free_port(), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def test_sharded_launches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_sharding()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UnimplementedError, match="FSDP"):
        refuse_sharding()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_equal_one(method: str, tree: dict[str, Any], tmp_path: Path) -> None:
    if method == "full":
        tree = {**tree, "method": "full"}
        del tree["lora"]
    found = {}
    for processes, size in ((1, 6), (2, 3)):
        # Thirty-six rows: six groups of six, whoever trains them.
        changed = {**tree, "optimisation": {**tree["optimisation"], "batch_size": size, "max_steps": 8}}
        recipe = tmp_path / f"recipe-{processes}.yaml"
        recipe.write_text(yaml.safe_dump({**changed, "checkpoints": {"save_steps": 4}}))
        found[processes] = _run(recipe, tmp_path / f"out-{processes}", processes)
    losses = {n: [entry["loss"] for entry in figures["loss_history"]] for n, figures in found.items()}
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)
    assert losses[1][-1] < 0.9 * losses[1][0]
    assert found[2]["tokens"] == found[1]["tokens"]
    weights = {n: load_file(next((tmp_path / f"out-{n}" / "published").glob("*model.safetensors"))) for n in (1, 2)}
    assert weights[1].keys() == weights[2].keys()
    for name, tensor in weights[1].items():
        assert tensor.numel() > 0
        torch.testing.assert_close(weights[2][name], tensor, rtol=5e-2, atol=2e-3, msg=name)
    assert not list((tmp_path / "out-2").glob(".rank-*"))
