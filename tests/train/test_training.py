"""Training: it learns, it repeats exactly, it resumes exactly, and it stops when the loss is no number."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from loradeck_registry.errors import PreconditionError
from loradeck_train.data.batches import Collator, EncodedDataset
from loradeck_train.model.build import build_model
from loradeck_train.model.loading import load_causal
from loradeck_train.model.loss import install_completion_loss, remove_completion_loss
from loradeck_train.prepare import prepare
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import RunReport, run

Build = Callable[..., Recipe]


def _run(recipe: Recipe, output: Path, resume: bool = False) -> RunReport:
    return run(recipe, None, output, resume=resume, console=Console(quiet=True))


def _losses(report: RunReport) -> list[float]:
    return [entry["loss"] for entry in report.result.history]


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16"}, {"method": "full", "lora": None}, {"gradient_checkpointing": True}],
    ids=["lora", "lora-bf16", "full", "checkpointing"],
)
def test_loss_goes_down_and_repeats_exactly(changes: dict[str, object], recipe_of: Build, tmp_path: Path) -> None:
    recipe = recipe_of(**changes)
    first, second = _run(recipe, tmp_path / "a"), _run(recipe, tmp_path / "b")
    losses = _losses(first)
    assert losses[-1] < 0.7 * losses[0]
    assert _losses(second) == losses
    assert first.manifest.files == second.manifest.files


def test_another_seed_gives_other_losses(recipe_of: Build, tmp_path: Path) -> None:
    short = {"max_steps": 3}
    first = _run(recipe_of(optimisation=short), tmp_path / "a")
    assert _losses(_run(recipe_of(optimisation=short, seed=5), tmp_path / "b")) != _losses(first)


def test_resuming_without_a_checkpoint_says_that_it_starts_anew(recipe_of: Build, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), record=True)
    run(recipe_of(optimisation={"max_steps": 3}), None, tmp_path / "out", resume=True, console=console)
    assert "starting at the beginning" in console.export_text()


def test_measurements_are_recorded(recipe_of: Build, tmp_path: Path) -> None:
    recipe = recipe_of(data={"validation": {"fraction": 0.2}}, optimisation={"max_steps": 10})
    report = _run(recipe, tmp_path / "out")
    prepared = prepare(recipe, None)
    record = report.manifest.provenance
    lengths = sorted(e.length for e in prepared.training)
    assert record["steps"] == 10
    # Two epochs of five batches each: every training row twice, padding not counted.
    assert record["tokens"] == 2 * sum(lengths)
    assert record["tokens_per_second"] == pytest.approx(record["tokens"] / record["seconds"], rel=0.05)
    assert record["peak_bytes"] > 4 * record["parameters"] / 2
    hidden, rank = 128, 4
    modules = 2 * ((hidden + hidden) * 2 + (hidden + 64) * 2 + (hidden + 256) * 3)
    assert record["trainable_parameters"] == rank * modules + 3 * hidden
    assert record["trainable_share"] == pytest.approx(record["trainable_parameters"] / record["parameters"], abs=1e-6)
    assert record["validation_loss"] > 0
    assert record["data"]["digest"] == prepared.data.digest
    lines = (tmp_path / "out" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [entry["loss"] for entry in record["loss_history"]]
    assert str(tmp_path) not in report.manifest.canonical_json().decode()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_resumed_run_equals_an_uninterrupted_one(method: str, recipe_of: Build, tmp_path: Path) -> None:
    changes: dict[str, object] = {
        "method": method,
        "lora": {"dropout": 0.1} if method == "lora" else None,
        "checkpoints": {"save_steps": 4},
    }
    whole = _run(recipe_of(**changes), tmp_path / "whole")

    # Cut short by a failure in the middle of the second epoch, two steps after a checkpoint.
    from loradeck_train.loop import callbacks

    class Cut(Exception):
        pass

    plain = callbacks.HistoryWriter.on_log

    def failing(self: object, args: object, state: object, control: object, **kwargs: object) -> None:
        plain(self, args, state, control, **kwargs)  # type: ignore[arg-type]
        if state.global_step == 10:  # type: ignore[attr-defined]
            raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.HistoryWriter, "on_log", failing)
        with pytest.raises(Cut):
            _run(recipe_of(**changes), tmp_path / "cut")
    with pytest.raises(PreconditionError, match="--resume") as caught:
        _run(recipe_of(**changes), tmp_path / "cut")
    assert caught.value.reason == "CHECKPOINTS_EXIST"
    with pytest.raises(PreconditionError, match="another recipe") as caught:
        _run(recipe_of(**changes, seed=9), tmp_path / "cut", resume=True)
    assert caught.value.reason == "RESUME_MISMATCH"
    # A checkpoint that lacks a part is passed over.
    shutil.copytree(
        tmp_path / "cut" / "checkpoints" / "checkpoint-8", tmp_path / "cut" / "checkpoints" / "checkpoint-9"
    )
    optimizer = tmp_path / "cut" / "checkpoints" / "checkpoint-9" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:100])
    resumed = _run(recipe_of(**changes), tmp_path / "cut", resume=True)
    assert _losses(resumed) == _losses(whole)
    assert resumed.manifest.files == whole.manifest.files
    assert resumed.result.tokens == whole.result.tokens
    assert not list((tmp_path / "cut").glob("checkpoints/*"))


def test_loss_that_is_no_number_stops_the_run(recipe_of: Build, tied_base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tied_base, broken)
    weights = load_file(str(broken / "model.safetensors"))
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, str(broken / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(PreconditionError, match=r"learning_rate.*these rows") as caught:
        _run(recipe_of(base=f"dir:{broken}"), tmp_path / "out")
    assert caught.value.reason == "LOSS_NOT_FINITE"
    assert not (tmp_path / "out" / "published").exists()


def test_unwritable_output_is_named(recipe_of: Build, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PreconditionError) as caught:
        _run(recipe_of(), tmp_path / "file" / "out")
    assert caught.value.reason == "NOT_WRITABLE"


@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_completion_loss_equals_the_models_own(base: str, recipe_of: Build, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(base)
    prepared = prepare(recipe_of(base=f"dir:{folder}", task={"label_tokens": False}), None)
    examples = EncodedDataset(prepared.training)
    batch = Collator(0)([examples[i] for i in range(6)])
    del batch["rows"]
    model = load_causal(folder, torch.float32)
    own = model(**batch).loss
    own.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    assert install_completion_loss(model)
    ours = model(**batch).loss
    ours.backward()
    torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)
    remove_completion_loss(model)
    assert model(**batch).logits.shape[:2] == batch["input_ids"].shape


def test_label_token_starts_at_the_mean_of_its_names_rows(recipe_of: Build) -> None:
    prepared = prepare(recipe_of(), None)
    trained = build_model(prepared.recipe, prepared.base.folder, prepared.task, 100, prepared.tokenizer)
    from loradeck_train.model.matrices import matrices
    from loradeck_train.model.new_rows import trained_rows

    rows = trained_rows(trained.causal)
    assert rows is not None
    matrix = matrices(trained.causal)[0]
    for row, label in zip(rows[0], prepared.task.labels, strict=True):
        ids = prepared.tokenizer.encode(label.name, add_special_tokens=False)
        mean = matrix[ids].mean(dim=0)
        assert torch.nn.functional.cosine_similarity(row, mean, dim=0) > 0.99
        assert not torch.equal(row, mean)
