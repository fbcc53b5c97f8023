"""The faster LoRA layer computes what PEFT's own does, forward and backward."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from loradeck_train.data.batches import Collator, EncodedDataset
from loradeck_train.model.build import build_model
from loradeck_train.model.low_rank import install_low_rank, remove_low_rank
from loradeck_train.prepare import prepare
from loradeck_train.recipe.settings import Recipe

Build = Callable[..., Recipe]


@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_outputs_and_gradients_equal_pefts(base: str, recipe_of: Build, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(base)
    prepared = prepare(recipe_of(base=f"dir:{folder}", lora={"rank": 4, "alpha": 12}), None)
    trained = build_model(prepared.recipe, folder, prepared.task, prepared.counts.longest, prepared.tokenizer)
    model = trained.model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.1, generator=generator)
    examples = EncodedDataset(prepared.training)
    batch = Collator(0)([examples[i] for i in range(6)])

    def measure() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    fast_loss, fast = measure()
    remove_low_rank(model)
    plain_loss, plain = measure()
    torch.testing.assert_close(fast_loss, plain_loss, rtol=1e-5, atol=1e-6)
    assert fast.keys() == plain.keys()
    assert len(fast) == 2 * 14 + (1 if base == "tied_base" else 2)
    for name, gradient in plain.items():
        torch.testing.assert_close(fast[name], gradient, rtol=1e-4, atol=5e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert install_low_rank(model) == 14


def test_layers_with_dropout_keep_pefts_forward(recipe_of: Build) -> None:
    prepared = prepare(recipe_of(lora={"dropout": 0.1}), None)
    trained = build_model(prepared.recipe, prepared.base.folder, prepared.task, 64, prepared.tokenizer)
    assert install_low_rank(trained.model) == 0
