"""The chunked loss and the rows of new tokens: the same values and gradients as the plain way, in less memory."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loradeck_train.data.batches import Collator, EncodedDataset
from loradeck_train.model.build import build_model
from loradeck_train.model.chunked_loss import CHUNK_BYTES, chunk_of, chunked_cross_entropy
from loradeck_train.model.loading import load_causal
from loradeck_train.model.loss import install_completion_loss, remove_completion_loss
from loradeck_train.model.low_rank import remove_low_rank
from loradeck_train.model.token_rows import head_parts, install_token_rows, remove_token_rows
from loradeck_train.prepare import prepare
from loradeck_train.recipe.settings import Recipe

Build = Callable[..., Recipe]


@pytest.mark.parametrize("chunk", [1, 16, 50, 64])
def test_chunked_loss_has_the_values_and_gradients_of_the_plain_one(chunk: int) -> None:
    torch.manual_seed(0)
    hidden, weight, bias, rows = (
        torch.randn(*shape, requires_grad=True) for shape in ((50, 32), (200, 32), (200,), (3, 32))
    )
    ids, targets = torch.tensor([5, 190, 7]), torch.randint(0, 200, (50,))
    targets[:4] = 190
    leaves = (hidden, weight, bias, rows)
    logits = hidden @ weight.index_copy(0, ids, rows).t() + bias
    plain = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    ours = chunked_cross_entropy(hidden, weight, targets, bias=bias, rows=rows, ids=ids, chunk=chunk)
    torch.testing.assert_close(ours, plain)
    for found, expected in zip(
        torch.autograd.grad(ours / 7, leaves), torch.autograd.grad(plain / 7, leaves), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_no_more_logits_than_a_chunk_are_ever_held() -> None:
    vocabulary, positions = 152_064, 900
    assert chunk_of(vocabulary) * vocabulary * 4 <= CHUNK_BYTES < positions * vocabulary * 4 / 5
    hidden = torch.randn(positions, 8, requires_grad=True)
    weight = torch.randn(vocabulary, 8)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            if isinstance(found, Tensor):
                largest = max(largest, found.numel() * found.element_size())
            return found

    with Watch():
        chunked_cross_entropy(hidden, weight, torch.zeros(positions, dtype=torch.long)).backward()
    assert hidden.grad is not None
    assert largest <= CHUNK_BYTES


@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_new_rows_train_as_pefts_do(base: str, recipe_of: Build, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(base)
    prepared = prepare(recipe_of(base=f"dir:{folder}"), None)
    dataset = EncodedDataset(prepared.training)
    batch = Collator(0)([dataset[i] for i in range(0, len(dataset), 4)])
    del batch["rows"]
    # The new tokens also stand in prompts, so that the embedding's side has a gradient.
    batch["input_ids"][:, 2] = prepared.task.added_tokens[1].id
    trained = build_model(prepared.recipe, folder, prepared.task, 100, prepared.tokenizer)
    assert head_parts(trained.causal.get_output_embeddings()) is not None
    trainable = {n: p for n, p in trained.model.named_parameters() if p.requires_grad}

    def gradients() -> tuple[Tensor, dict[str, Tensor]]:
        trained.model.zero_grad()
        loss = trained.model(**batch).loss
        loss.backward()
        return loss.detach(), {name: p.grad.clone() for name, p in trainable.items() if p.grad is not None}

    ours, found = gradients()
    remove_completion_loss(trained.causal)
    remove_low_rank(trained.model)
    remove_token_rows(trained.model)
    plain, expected = gradients()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    assert set(found) == set(expected)
    rows = [name for name in expected if "trainable_tokens" in name]
    assert rows
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)
        assert expected[name].abs().sum() > 0 or "lora_A" in name
    assert install_token_rows(trained.model) == 1


def test_head_that_is_no_plain_matrix_is_computed_by_itself(untied_base: Path, recipe_of: Build) -> None:
    prepared = prepare(recipe_of(base=f"dir:{untied_base}", task={"label_tokens": False}), None)
    dataset = EncodedDataset(prepared.training)
    batch = Collator(0)([dataset[i] for i in range(4)])
    del batch["rows"]
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_causal(untied_base, torch.float32), LoraConfig(r=2, target_modules=["lm_head"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    plain = model(**batch).loss.detach()
    causal = model.get_base_model()
    assert head_parts(causal.get_output_embeddings()) is None
    install_completion_loss(causal)
    loss = model(**batch).loss
    loss.backward()
    torch.testing.assert_close(loss.detach(), plain, rtol=1e-5, atol=1e-6)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
