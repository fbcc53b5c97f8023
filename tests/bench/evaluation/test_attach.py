"""Results go back to the registry as metrics of the revision that answered, and decide whether an alias may move."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loradeck_bench.evaluation.attach import stated_metrics
from loradeck_cli.evaluate.group import command
from loradeck_registry.bases.resolve import resolve_base
from loradeck_registry.errors import LoradeckError, PreconditionError
from loradeck_registry.publish import push_folder
from loradeck_registry.registry import Registry
from loradeck_tasks.defaults import default_task
from tests.bench.conftest import DIGESTS, RunningServer
from tests.support.tiny import make_tiny_adapter, make_tiny_base

LABELS = ("AI", "Telecom")
ROWS = [{"text": f"{LABELS[i % 4 == 0]} {i}", "label": LABELS[i % 2 == 0]} for i in range(40)]
# The scripted server answers with the first word: 30 of 40 are right.


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two revisions of `clf`."""
    base_folder = make_tiny_base(tmp_path / "base")
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    base = resolve_base(f"dir:{base_folder}", registry)
    task = default_task("classification", labels=[{"name": label} for label in LABELS]).model_dump(mode="json")
    for seed in (1, 2):
        adapter = make_tiny_adapter(base_folder, tmp_path / f"adapter-{seed}", seed=seed)
        push_folder(registry, "clf", adapter, base, task=task)
    return registry


async def evaluate(server: RunningServer, registry: Registry, folder: Path, *arguments: str) -> Result:
    data = folder / "d.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    line = [
        "run", "--server", server.address, "--adapter", "clf", "--task", "classification", "--data", str(data),
        "--registry", str(registry.url), *arguments,
    ]  # fmt: skip
    return await asyncio.to_thread(CliRunner().invoke, command, line)


async def test_attached_metrics_open_the_gate_of_an_alias(
    scripted: RunningServer, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = registry.resolve("clf@1")
    monkeypatch.setitem(DIGESTS, 1, revision.digest)
    registry.protect("clf", "prod", ["accuracy >= 0.7", "macro_f1.low >= 0.5", "ece <= 0.2"])
    with pytest.raises(LoradeckError, match="does not pass"):
        registry.move_alias("clf", "prod", "clf@1")
    result = await evaluate(scripted, registry, tmp_path, "--attach")
    assert result.exit_code == 0, result.output
    assert "attached to clf@1 as evaluation 1" in result.output
    assert registry.metrics(revision)["accuracy"] == pytest.approx(0.75)
    about = registry.attachments(revision, "evaluation")[0].content["about"]
    assert about["task"] == "classification"
    assert json.loads(about["methods"])["macro_f1"].startswith("scikit-learn ")
    registry.move_alias("clf", "prod", "clf@1")
    registry.protect("clf", "prod", ["accuracy >= 0.8"])
    with pytest.raises(LoradeckError, match=r"clf@2 does not pass"):
        registry.move_alias("clf", "prod", "clf@2")


async def test_evaluation_of_a_moving_alias_is_not_attached(
    scripted: RunningServer, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        monkeypatch.setitem(DIGESTS, number, registry.resolve(f"clf@{number}").digest)
    answer = scripted.servicer._provenance

    def moving(request: Any) -> Any:
        scripted.servicer.revision = 1 + len(scripted.servicer.seen) % 2
        return answer(request)

    monkeypatch.setattr(scripted.servicer, "_provenance", moving)
    result = await evaluate(scripted, registry, tmp_path, "--attach")
    assert isinstance(result.exception, PreconditionError)
    assert result.exception.reason == "SEVERAL_REVISIONS"
    assert registry.attachments(registry.resolve("clf@1"), "evaluation") == []


async def test_base_from_a_folder_has_nothing_to_attach_to(
    scripted: RunningServer, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DIGESTS, 1, "")
    result = await evaluate(scripted, registry, tmp_path, "--attach")
    assert isinstance(result.exception, PreconditionError)
    assert result.exception.reason == "NO_REVISION"


async def test_missing_registry_is_told_before_anything_is_asked(
    scripted: RunningServer, registry: Registry, tmp_path: Path
) -> None:
    result = await evaluate(scripted, registry, tmp_path, "--attach", "--registry", str(tmp_path / "none"))
    assert isinstance(result.exception, LoradeckError)
    assert result.exception.reason == "NO_REGISTRY"
    assert not scripted.servicer.seen


def test_bounds_of_intervals_are_stated_beside_their_figures() -> None:
    report = {
        "methods": {"loss": "x"},
        "loss": 1.5,
        "intervals": {"loss": [1.0, 2.0]},
        "rows": 3,
        "latency_ms": {"p50": 4},
    }
    assert stated_metrics(report) == {"loss": 1.5, "loss.low": 1.0, "loss.high": 2.0, "rows": 3.0}


def test_figure_that_is_named_by_its_model_can_be_asked_for(registry: Registry) -> None:
    rules = ["sem_sim:all-MiniLM-L6-v2 >= 0.5", "bert_score_f1:tiny.low >= @prod - 0.01"]
    registry.protect("clf", "prod", rules)
    assert registry.rules("clf", "prod") == rules
