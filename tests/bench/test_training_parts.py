"""Parts of `bench train`: the recipe of a side, memory over time, tables; and the whole comparison, small."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loradeck_bench.training.sides import Work, recipe
from loradeck_bench.training.tables import training_tables
from loradeck_bench.training.trace import MemoryTrace
from loradeck_train.recipe.files import parse_recipe

MEBIBYTE = 2**20
HOLD = """
import sys
held = bytearray(int(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
del held
print("freed", flush=True)
sys.stdin.readline()
"""


def test_memory_over_time_sees_a_peak_and_its_phase() -> None:
    command = [sys.executable, "-c", HOLD, str(100 * MEBIBYTE)]
    phase = "early"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        with MemoryTrace(process.pid, lambda: phase) as trace:
            while (trace.peak_bytes("early") or 0) < 100 * MEBIBYTE:
                time.sleep(0.01)
            print(file=process.stdin, flush=True)
            process.stdout.readline()
            # As many samples without it as the last point may stand for.
            phase, seen = "late", len(trace.samples)
            while len(trace.samples) < seen + 4 + seen // 20:
                time.sleep(0.01)
            print(file=process.stdin, flush=True)
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


def test_tables_of_methods_alone_leave_the_plain_trainer_out() -> None:
    methods = {
        "methods": [
            {
                "method": "lora", "batch_size": 8, "tokens_per_s": 100.0, "seconds": 1.0, "peak_bytes": 1,
                "checkpoint_peak_bytes": None, "validation_loss": 1.0, "stored_bytes": 1,
            }
        ],
        "stored": [{"what": "full checkpoint", "trainable_parameters": 1, "bytes": 2}],
    }  # fmt: skip
    titles = [table.title for table in training_tables(methods)]
    assert titles == ["LoRA and full", "what is published"]
    both = {"plain_tokens_per_s": 1.0, "loradeck_tokens_per_s": 2.0, "ratio": 2.0, "plain_peak_bytes": 1,
            "loradeck_peak_bytes": 1, "peak_ratio": 1.0, "loss_difference": 0.0}  # fmt: skip
    assert len(list(training_tables(methods | both))) == 3
