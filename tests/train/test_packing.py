"""Packed rows: the same losses and gradients as padded batches, and no look across examples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from loradeck_train.data.batches import IGNORED, Collator, EncodedDataset
from loradeck_train.data.encoding import Encoded
from loradeck_train.data.filling import fill_rows
from loradeck_train.data.packing import PackingCollator, RowsDataset
from loradeck_train.model.attention import PACKED, register_packed_attention, supports_packed
from loradeck_train.model.loading import load_causal
from loradeck_train.model.loss import install_completion_loss
from loradeck_train.prepare import prepare
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import run

Build = Callable[..., Recipe]
LENGTHS = (3, 40, 17, 40, 9, 26)


def _examples(seed: int = 0) -> list[Encoded]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for length in LENGTHS:
        ids = torch.randint(3, 300, (length,), generator=generator).tolist()
        found.append(Encoded(tuple(ids[: length // 2]), tuple(ids[length // 2 :])))
    return found


def _batch(collator: Any, examples: list[Encoded], learn_prompt: bool = False) -> dict[str, Any]:
    dataset = EncodedDataset(examples, learn_prompt)
    batch: dict[str, Any] = collator([dataset[i] for i in range(len(examples))])
    assert batch.pop("rows") == list(range(len(examples)))
    return batch


def _loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("attention", [PACKED, "sdpa", "eager"])
@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
@pytest.mark.parametrize("learn_prompt", [False, True], ids=["completion", "all"])
def test_packed_losses_and_gradients_equal_padded_ones(
    attention: str, base: str, learn_prompt: bool, request: pytest.FixtureRequest
) -> None:
    register_packed_attention()
    folder = request.getfixturevalue(base)
    padded_model = load_causal(folder, torch.float32, "sdpa")
    install_completion_loss(padded_model)
    padded, expected = _loss_and_gradients(padded_model, _batch(Collator(0), _examples(), learn_prompt))
    packed_model = load_causal(folder, torch.float32, attention)
    assert supports_packed(packed_model.config)
    install_completion_loss(packed_model)
    packed, found = _loss_and_gradients(packed_model, _batch(PackingCollator(), _examples(), learn_prompt))
    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


def test_no_example_sees_another(tied_base: Path) -> None:
    register_packed_attention()
    model = load_causal(tied_base, torch.float32, PACKED)
    borders = [sum(LENGTHS[:i]) for i in range(len(LENGTHS) + 1)]
    first, second = _batch(PackingCollator(), _examples()), _batch(PackingCollator(), _examples())
    changed = slice(borders[1], borders[2])
    second["input_ids"][0, changed] = second["input_ids"][0, changed].flip(0)
    del first["labels"], second["labels"]
    with torch.inference_mode():
        before, after = model(**first).logits[0], model(**second).logits[0]
    differs = (before != after).any(-1)
    assert differs[changed].any()
    assert not differs[: borders[1]].any()
    assert not differs[borders[2] :].any()


def test_first_label_of_every_example_is_not_learned() -> None:
    batch = _batch(PackingCollator(), _examples(), learn_prompt=True)
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    assert starts == batch["cu_seq_lens_q"][:-1].tolist()
    assert (batch["labels"][0, starts] == IGNORED).all()
    assert int((batch["labels"] != IGNORED).sum()) == sum(LENGTHS) - len(LENGTHS)


def test_rows_are_filled_by_best_fit() -> None:
    lengths = torch.randint(10, 180, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = fill_rows(lengths, 512, seed=0)
    assert sorted(i for row in rows for i in row) == list(range(1000))
    sizes = [sum(lengths[i] for i in row) for row in rows]
    assert max(sizes) <= 512
    assert sum(sizes) > 0.98 * 512 * len(rows)
    assert fill_rows(lengths, 512, seed=0) == rows
    assert fill_rows(lengths, 512, seed=1) != rows
    assert fill_rows([600, 5], 512, seed=0) == [[0], [1]]


def test_filled_row_is_its_examples_behind_one_another() -> None:
    examples = _examples()
    dataset = RowsDataset(EncodedDataset(examples), [[1, 2], [0]])
    batch = PackingCollator()([dataset[0], dataset[1]])
    assert batch["rows"] == [1, 2, 0]
    assert batch["cu_seq_lens_q"].tolist() == [0, 40, 57, 60]
    assert batch["max_length_q"] == 40
    assert batch["input_ids"][0, 40:57].tolist() == [*examples[2].prompt, *examples[2].answer]


@pytest.mark.parametrize("packing", ["batch", "fill"])
def test_packed_run_trains_every_token_and_learns(packing: str, recipe_of: Build, tmp_path: Path) -> None:
    size = 2 if packing == "fill" else 6
    recipe = recipe_of(
        packing=packing, max_length=128, optimisation={"max_steps": None, "epochs": 4, "batch_size": size}
    )
    report = run(recipe, None, tmp_path / "out", console=Console(quiet=True))
    losses = [entry["loss"] for entry in report.result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert report.result.tokens == 4 * sum(e.length for e in prepare(recipe, None).training)
    assert report.manifest.provenance["attention"] == PACKED


def test_checkpointed_activations_change_nothing(recipe_of: Build, tmp_path: Path) -> None:
    losses = []
    for on in (False, True):
        recipe = recipe_of(packing="batch", gradient_checkpointing=on, optimisation={"max_steps": 4})
        report = run(recipe, None, tmp_path / str(on), console=Console(quiet=True))
        losses.append([entry["loss"] for entry in report.result.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
