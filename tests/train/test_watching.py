"""Watching a run: looks at validation rows, the best weights, guards, what was forgotten, the picture."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_registry.registry import Registry
from loradeck_train.loop.guards import LossGuard, WeightsMoved, describe_rows
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import RunReport, run

Build = Callable[..., Recipe]


def _run(recipe: Recipe, output: Path, registry: Registry | None = None, console: Console | None = None) -> RunReport:
    return run(recipe, registry, output, console=console or Console(quiet=True))


@pytest.fixture
def unlearnable(tmp_path: Path) -> str:
    """Validation rows whose labels contradict the training rows: the better the model, the higher their loss."""
    rows = [
        {"text": "The bank opened a branch. And so on.", "label": "school"},
        {"text": "The school taught with tablets. And so on.", "label": "bank"},
    ]
    path = tmp_path / "contradicting.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_best_weights_are_published_and_a_run_that_gets_worse_ends(
    recipe_of: Build, unlearnable: str, tmp_path: Path
) -> None:
    recipe = recipe_of(
        data={"validation": {"source": unlearnable}},
        evaluation={"every_steps": 2, "patience": 3},
        optimisation={"max_steps": 60, "scheduler": "constant"},
    )
    report = _run(recipe, tmp_path / "out")
    looks = {int(entry["step"]): entry["validation_loss"] for entry in report.result.looks}
    best = min(looks, key=looks.__getitem__)
    assert report.result.best_step == best
    assert report.result.stopped_early
    assert report.result.steps == best + 6 < 60
    assert report.result.validation_loss == pytest.approx(looks[best], abs=1e-6)
    assert report.manifest.provenance["best_step"] == best
    last = recipe_of(
        data={"validation": {"source": unlearnable}},
        evaluation={"every_steps": 2, "patience": 3, "keep_best": False},
        optimisation={"max_steps": 60, "scheduler": "constant"},
    )
    kept_last = _run(last, tmp_path / "last")
    assert kept_last.result.validation_loss == pytest.approx(looks[max(looks)], abs=1e-6)
    assert kept_last.manifest.files != report.manifest.files
    assert not (tmp_path / "out" / "best").exists()


def test_looks_need_validation_rows(recipe_of: Build) -> None:
    with pytest.raises(InvalidError, match=r"data\.validation"):
        recipe_of(evaluation={"every_steps": 2})


@pytest.mark.parametrize("method", ["lora", "full"])
def test_forgetting_is_the_bases_perplexity_before_and_after(method: str, recipe_of: Build, tmp_path: Path) -> None:
    text = tmp_path / "general.txt"
    text.write_text("A hospital bought a scanner; models learn, and companies change how they work. " * 20)
    changes = {"lora": None} if method == "full" else {}
    task = {"label_tokens": False}  # new rows would take part in the softmax
    recipe = recipe_of(method=method, evaluation={"forgetting": str(text)}, task=task, **changes)
    found = _run(recipe, tmp_path / "out").result.forgetting
    assert found is not None
    from loradeck_train.data.encoding import Encoded
    from loradeck_train.loop.evaluation import loss_per_token
    from loradeck_train.model.loading import load_causal
    from loradeck_train.model.loss import install_completion_loss
    from loradeck_train.prepare import prepare

    prepared = prepare(recipe, None)
    ids = prepared.tokenizer.encode(text.read_text())
    windows = [Encoded(tuple(ids[i : i + 1]), tuple(ids[i + 1 : i + 256])) for i in range(0, len(ids), 256)]
    base = load_causal(prepared.base.folder, torch.float32)
    install_completion_loss(base)
    expected = torch.tensor(loss_per_token(base, windows, bf16=False)).exp().item()
    assert found["perplexity_before"] == pytest.approx(expected, rel=1e-4)
    assert found["tokens"] == sum(len(window.answer) for window in windows)
    assert found["perplexity_after"] != found["perplexity_before"]
    assert found["ratio"] == pytest.approx(found["perplexity_after"] / found["perplexity_before"], abs=1e-3)


def test_picture_is_attached_to_the_revision(recipe_of: Build, tmp_path: Path) -> None:
    registry = Registry.init(str(tmp_path / "deck"))
    recipe = recipe_of(
        publish={"name": "clf"}, optimisation={"max_steps": 4}, evaluation={"every_steps": 2},
        data={"validation": {"fraction": 0.2}},
    )  # fmt: skip
    report = _run(recipe, tmp_path / "out", registry)
    assert report.revision is not None
    note = registry.attachments(report.revision, "note")[-1].content
    picture = base64.b64decode(note["data"])
    assert picture.startswith(b"\x89PNG")
    assert picture == (tmp_path / "out" / "run.png").read_bytes()
    assert note["media_type"] == "image/png"


def test_history_has_memory_and_looks(recipe_of: Build, tmp_path: Path) -> None:
    recipe = recipe_of(
        optimisation={"max_steps": 4}, evaluation={"every_steps": 2}, data={"validation": {"fraction": 0.2}}
    )
    _run(recipe, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    assert all(line["memory_bytes"] > 50 * 2**20 for line in lines if "loss" in line)


def test_weights_that_do_not_move_stop_the_run(recipe_of: Build, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError) as caught:
        _run(recipe_of(optimisation={"learning_rate": 1e-60}), tmp_path / "out")
    assert caught.value.reason == "WEIGHTS_DID_NOT_MOVE"


def test_some_unmoved_weights_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = WeightsMoved(model)
    with torch.no_grad():
        model[0].weight += 1e-3
    assert before.unmoved(model) == ["0.bias", "1.weight", "1.bias"]


def test_loss_that_runs_away_is_stopped_with_its_batch_named() -> None:
    guard = LossGuard(0.01)
    for step in range(30):
        guard.check(step, 2.0 - step / 30, 1.0, [step])

    def run_away() -> None:
        for step in range(40, 80):
            guard.check(step, 9.0 if step == 44 else 4.0, 1.0, [10, 7])

    with pytest.raises(PreconditionError, match=r"worst 9\.00, step 44 of rows 8, 11") as caught:
        run_away()
    assert caught.value.reason == "LOSS_DIVERGED"
    steady = LossGuard(0.01)
    for step in range(200):
        steady.check(step, 3.0 + (step % 7), 1.0, [0])


def test_rows_are_counted_from_one_and_cut_short() -> None:
    assert describe_rows([4, 0]) == "rows 1, 5"
    assert describe_rows(range(20)) == "rows 1, 2, 3, 4, 5, 6, 7, 8 and 12 more"


def test_board_is_written_where_it_is_installed(recipe_of: Build, tmp_path: Path) -> None:
    recipe = recipe_of(tensorboard=True, optimisation={"max_steps": 3})
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(PreconditionError, match="tensorboard") as caught:
            _run(recipe, tmp_path / "out")
        assert caught.value.reason == "MISSING_PACKAGE"
        return
    _run(recipe, tmp_path / "out")
    assert list((tmp_path / "out" / "tensorboard").glob("events.*"))


def test_ligers_kernels_are_substituted_aloud_without_cuda(recipe_of: Build) -> None:
    from loradeck_train.loop.schedule import Schedule
    from loradeck_train.loop.trainer import training_arguments
    from loradeck_train.recipe.substitutions import substituted

    recipe, said = substituted(recipe_of(liger=True), False)
    assert not recipe.liger
    assert "Liger" in said[0]
    assert not training_arguments(recipe, Schedule(1, 1, 0), Path("out")).use_liger_kernel
    assert substituted(recipe_of(liger=True), True) == (recipe_of(liger=True), [])


def test_figures_that_could_not_be_written_stop_the_run_before_it_begins(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from loradeck_cli.train.group import command

    (tmp_path / "file").write_text("")
    arguments = [
        "run",
        "pocket/clf-lora",
        "--output",
        str(tmp_path / "out"),
        "--json",
        str(tmp_path / "file" / "x.json"),
    ]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, PreconditionError)
    assert result.exception.reason == "NOT_WRITABLE"
    assert not (tmp_path / "out").exists()
