"""The plan: every recipe has one without weights, its bytes are those of tensors, its lint comes before any step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from loradeck_registry.bases.known import known_base
from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_train.data.batches import Collator, EncodedDataset
from loradeck_train.model.build import build_model
from loradeck_train.plan import devices
from loradeck_train.plan.devices import named_gpu, this_machine
from loradeck_train.plan.plan import plan
from loradeck_train.plan.tracking import LiveBytes
from loradeck_train.prepare import prepare
from loradeck_train.recipe.files import load_recipe, shipped_recipes
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import run

Build = Callable[..., Recipe]
RECORDED = [
    name for name in shipped_recipes() if known_base(load_recipe(name).base_like or load_recipe(name).base) is not None
]


@pytest.mark.parametrize("name", RECORDED)
def test_every_recipe_of_the_studies_is_planned_without_weights(name: str) -> None:
    made = plan(load_recipe(name), None, gpu="A100-80GB", others=False)
    figures = made.as_json()
    assert figures["stated"]
    memory = figures["memory"]
    assert memory["peak"] >= memory["weights"] + memory["optimizer"] > 0
    assert figures["seconds"] > 0
    assert figures["servable"]


def test_live_bytes_counts_what_is_alive() -> None:
    weight = torch.zeros(10, 10)
    with LiveBytes([weight]) as live:
        a = weight.t() + 1
        assert live.now == 400
        b = a.t().view(100) * 2
        assert live.now == 800
        del a
        assert live.now == 400
        del b
    assert (live.now, live.peak) == (0, 800)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"method": "full", "lora": None},
        {"gradient_checkpointing": True},
        {"method": "full", "lora": None, "precision": "bf16"},
    ],
    ids=["lora", "lora-bf16", "full", "checkpointing", "full-bf16"],
)
@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_a_simulated_step_holds_what_a_real_one_does(
    base: str, changes: dict[str, Any], recipe_of: Build, request: pytest.FixtureRequest
) -> None:
    """The same counting, over real tensors and the real loss."""
    folder: Path = request.getfixturevalue(base)
    recipe = recipe_of(base=f"dir:{folder}", task={"label_tokens": False}, **changes)
    prepared = prepare(recipe, None)
    size = recipe.optimisation.batch_size
    planned = plan(recipe, None, others=False)
    trained = build_model(recipe, folder, prepared.task, prepared.counts.longest, prepared.tokenizer)
    if recipe.gradient_checkpointing:
        trained.causal.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        trained.causal.enable_input_require_grads()  # type: ignore[operator]
    trained.model.train()
    longest = sorted(range(len(prepared.training)), key=lambda i: -prepared.training[i].length)[:size]
    data = EncodedDataset(prepared.training)
    batch = Collator(0)([data[i] for i in longest])
    del batch["rows"]
    with LiveBytes([*trained.model.parameters(), *trained.model.buffers()]) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = trained.model(**batch).loss
        loss.backward()
    simulated = planned.step.peak
    assert simulated == pytest.approx(live.peak, rel=0.05)
    gradients = sum(p.numel() * 4 for p in trained.model.parameters() if p.requires_grad)
    assert planned.memory.gradients == gradients
    assert planned.memory.weights == sum(p.numel() * p.element_size() for p in trained.model.parameters())
    assert isinstance(trained.model, nn.Module)


def test_a_further_layer_costs_what_the_last_one_did(tied_base: Path) -> None:
    recipe = load_recipe("alpaca/qwen2.5-1.5b-lora", sets=["precision=bf16"])
    whole = plan(recipe, None, gpu="H100", others=False).step
    from loradeck_train.plan import simulation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "_MORE", 28)
        direct = plan(recipe, None, gpu="H100", others=False).step
    assert whole.peak == pytest.approx(direct.peak, rel=0.005)
    assert whole.trained == direct.trained


def test_memory_follows_method_batch_and_gpu() -> None:
    figures = plan(load_recipe("alpaca/qwen2.5-1.5b-lora"), None, gpu="RTX-4080", batch_sizes=(1, 4)).as_json()
    peaks = {(row["method"], row["batch_size"]): row["peak_bytes"] for row in figures["alternatives"]}
    fits = {(row["method"], row["batch_size"]): row["fits"] for row in figures["alternatives"]}
    # Full tuning peaks in the optimizer, where small batches do not show.
    assert peaks["lora", 1] < peaks["lora", 4] < peaks["full", 1] <= peaks["full", 4]
    # The study: LoRA fits its 16 GB, full tuning does not.
    assert fits["lora", 4]
    assert not fits["full", 1]
    four_bits = plan(load_recipe("alpaca/qwen2.5-1.5b-qlora"), None, gpu="RTX-4080", others=False)
    assert four_bits.memory.weights < 0.45 * figures["memory"]["weights"]
    with pytest.raises(InvalidError, match="RTX-4080"):
        named_gpu("RTX-408")


def test_substitutions_are_announced() -> None:
    recipe = load_recipe("econ-it/clf-lora")
    here = plan(recipe, None, others=False).as_json()["substitutions"]
    assert len(here) == 2
    assert any("paged_adamw_8bit" in line for line in here)
    assert any("fp16" in line for line in here)
    assert plan(recipe, None, gpu="A100-80GB", others=False).as_json()["substitutions"] == []


def test_what_could_not_be_served_is_said_before_training(recipe_of: Build, tmp_path: Path) -> None:
    made = plan(load_recipe("anyscale/viggo-7b-lora-blind"), None, gpu="H100", others=False)
    assert "--reserve-tokens" in made.problems[0]
    recipe = recipe_of(lora={"init": "pissa", "rank": 300})
    assert "512" in plan(recipe, None, others=False).problems[0]
    with pytest.raises(PreconditionError) as caught:
        run(recipe, None, tmp_path / "out")
    assert caught.value.reason == "NOT_SERVABLE"
    assert not (tmp_path / "out").exists()


def test_memory_of_a_container_is_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(devices, "_CONTAINER_LIMITS", (limit, tmp_path / "missing"))
    whole = this_machine("fp32").memory_bytes
    limit.write_text("max\n")
    assert this_machine("fp32").memory_bytes == whole
    limit.write_text(f"{2**29}\n")
    assert this_machine("fp32").memory_bytes == 2**29
