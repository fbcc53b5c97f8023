"""Parts of `bench train`: the recipe of a side, memory over time, tables; and the whole comparison, small."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import loradeck_pocket
from loradeck_bench.training.sides import Work, recipe
from loradeck_bench.training.tables import training_tables
from loradeck_bench.training.trace import MemoryTrace
from loradeck_train.recipe.files import parse_recipe

MEBIBYTE = 2**20
HOLD = """
import sys, time
held = bytearray(int(sys.argv[1]))
print("held", flush=True)
time.sleep(0.5)
del held
time.sleep(0.3)
"""


def test_memory_over_time_sees_a_peak_and_its_phase() -> None:
    command = [sys.executable, "-c", HOLD, str(100 * MEBIBYTE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        with MemoryTrace(process.pid, lambda: "early" if time.monotonic() - began < 0.3 else "late") as trace:
            process.wait()
    early, peak = trace.peak_bytes("early"), trace.peak_bytes()
    assert early is not None
    assert peak is not None
    assert 100 * MEBIBYTE < early <= peak < 160 * MEBIBYTE
    assert trace.peak_bytes("never") is None
    points = trace.points(above=50 * MEBIBYTE)
    assert len(points) <= 60
    assert max(point["bytes"] for point in points) == peak - 50 * MEBIBYTE
    assert points[-1]["bytes"] < 50 * MEBIBYTE


@pytest.mark.parametrize(
    "changes", [{}, {"method": "full"}, {"max_steps": 3}, {"target_modules": ("q_proj", "v_proj")}]
)
def test_every_work_is_a_recipe(changes: dict[str, object], tmp_path: Path) -> None:
    work = Work(tmp_path, tmp_path / "a.jsonl", tmp_path / "b.jsonl", epochs=1.0).with_(**changes)
    parsed = parse_recipe(json.loads(json.dumps(recipe(work))))
    assert parsed.method == work.method
    assert parsed.optimisation.batch_size == 16
    assert parsed.optimisation.max_steps == work.max_steps
    assert parsed.precision == "bf16"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_comparison_small(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    command = [
        sys.executable, "-m", "loradeck_cli.main", "bench", "train", "--json", str(path), "--rounds", "1",
        "--rows", "32", "--wide-steps", "1", "--ladder-rows", "32",
    ]  # fmt: skip
    done = subprocess.run(
        command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=880
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert result["ratio"] == pytest.approx(result["loradeck_tokens_per_s"] / result["plain_tokens_per_s"], abs=2e-3)
    assert result["loradeck_peak_bytes"] < 0.7 * result["plain_peak_bytes"]
    assert result["loss_difference"] < 0.5
    first = result["rounds"][0]
    # Both sides trained exactly the same tokens.
    assert first["plain"]["tokens"] == first["loradeck"]["tokens"] > 32 * 50
    assert [(row["method"], row["batch_size"]) for row in result["methods"]] == [
        ("lora", 4), ("full", 4), ("lora", 16), ("full", 16),
    ]  # fmt: skip
    stored = {row["what"]: row["bytes"] for row in result["stored"]}
    assert stored["q_proj and v_proj"] < stored["all linear layers"] < stored["full checkpoint"]
    assert stored["full checkpoint"] == pytest.approx(
        (loradeck_pocket.BASE / "model.safetensors").stat().st_size, rel=0.01
    )
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    for table in training_tables(result):
        console.print(table)
    assert "useful tokens/s" in console.export_text()
