"""A study as a user runs it: killed in its training, run again, then found done; real training, server, evaluation."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import loradeck_pocket
from loradeck_registry.registry import Registry
from tests.bench.test_demo import running_in

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (loradeck_pocket.BASE / "model.safetensors").is_file(), reason="the pocket base is not there"
    ),
]
LORADECK = [sys.executable, "-m", "loradeck_cli.main"]
SERVED = {"kind": "served", "server": "main", "task": "classification", "data": "texts", "limit": 18, "of": "lora"}
STUDY: dict[str, Any] = {
    "title": "one training, one server, one evaluation",
    "about": "nine classes",
    "published": "econ-it",
    "bases": {"main": {"source": "pocket:base"}},
    "data": {
        "texts": {
            "what": "nine classes",
            "sources": [{"train": "pocket:classification", "test": "pocket:classification"}],
        }
    },
    "runs": {
        "lora": {
            "recipe": "pocket/clf-lora",
            "data": "texts",
            "set": {"data.limit": 64, "optimisation.epochs": None, "optimisation.max_steps": 4},
        }
    },
    "servers": {"main": {"base": "main", "set": {"engine.enforce_eager": True, "engine.kv_cache_gib": 0.25}}},
    "evaluations": {"lora": SERVED},
    "tables": [
        {
            "id": "table-7",
            "title": "LoRA by class",
            "columns": [{"name": "f1-score", "key": "f1", "show": "number", "digits": 2}],
            "rows": [{"name": name, "of": f"evaluations/lora/report/{name}"} for name in ("AI", "macro avg")],
        }
    ],
    "figures": [{"id": "figure-3", "title": "loss", "kind": "curves", "series": [{"name": "LoRA", "of": "runs/lora"}]}],
    "scales": {"pocket": {}},
}


@contextmanager
def running(study: Path, work: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`loradeck study run`, which does not outlive its test."""
    command = [*LORADECK, "study", "run", str(study), "--work", str(work)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, process_group=0)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)


def left(study: Path, work: Path) -> list[str]:
    command = [*LORADECK, "study", "status", str(study), "--work", str(work), "--json", "-"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return [step["step"] for step in json.loads(said)["steps"] if step["state"] == "left"]


@pytest.mark.timeout(1200)
def test_killed_study_loses_its_current_run_alone_and_is_finished_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How its user reaches other servers is nothing to the study's own.
    monkeypatch.setenv("LORADECK_TLS_CA", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("LORADECK_API_KEY", "of-another-server")
    study, work = tmp_path / "tiny.yaml", tmp_path / "work"
    study.write_text(yaml.safe_dump(STUDY))
    place = work / "tiny" / "pocket"
    bases, runs = place / "outcomes" / "bases" / "main", place / "outcomes" / "runs" / "lora"
    with running(study, work, tmp_path / "killed.log") as process:
        wait_for((place / "logs" / "runs-lora.log").is_file, 120, "the training's start")
        process.kill()
        process.wait()
    wait_for(lambda: not running_in(place), 60, "the end of what the killed study had started")
    kept = [path.stat().st_mtime_ns for path in bases.glob("*.json")]
    assert len(kept) == 1
    assert not list(runs.glob("*.json"))
    assert left(study, work) == ["runs/lora", "evaluations/lora"]

    with running(study, work, tmp_path / "again.log") as process:
        assert process.wait(900) == 0, (tmp_path / "again.log").read_text()[-3000:]
    assert [path.stat().st_mtime_ns for path in bases.glob("*.json")] == kept, "the base was not added again"
    report = json.loads((place / "report.json").read_text())
    assert {step["state"] for step in report["steps"]} == {"done"}
    cells = [row["cells"]["f1-score"] for row in report["tables"]["table-7"]["rows"]]
    assert all(0 <= cell["measured"] <= 1 for cell in cells)
    assert cells[0]["low"] <= cells[0]["measured"] <= cells[0]["high"]
    assert cells[0]["published_text"] == "0.67"
    assert len(report["figures"]["figure-3"]["series"][0]["points"]) >= 2
    assert report["seconds"] > 0
    registry = Registry.open(str(place / "registry"))
    (attached,) = registry.attachments(registry.resolve("lora"), "evaluation")
    assert attached.content["metrics"]["macro_f1"] == cells[1]["measured"]
    assert "data:image/svg+xml" in (place / "report.html").read_text()
    assert not running_in(place)

    assert left(study, work) == []
    changed = {**STUDY, "evaluations": {"lora": {**SERVED, "limit": 9}}}
    study.write_text(yaml.safe_dump(changed))
    assert left(study, work) == ["evaluations/lora"], "an edit of the evaluation leaves the training alone"
