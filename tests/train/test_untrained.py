"""Control tokens that a base never learned are found, and said before training and in the plan."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from loradeck_train.model.untrained import untrained_tokens
from loradeck_train.plan.plan import plan
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import run

END = 2  # <|im_end|>
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def spoiled(tied_base: Path, tmp_path: Path) -> Callable[[Callable[[torch.Tensor], None]], Path]:
    """The tiny base with rows changed."""

    def build(change: Callable[[torch.Tensor], None]) -> Path:
        folder = tmp_path / "spoiled"
        shutil.copytree(tied_base, folder)
        weights = load_file(str(folder / "model.safetensors"))
        change(weights[EMBEDDING])
        save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
        return folder

    return build


def test_a_short_row_and_twins_are_found(
    tied_base: Path, spoiled: Callable[[Callable[[torch.Tensor], None]], Path]
) -> None:
    assert untrained_tokens(tied_base, 320, [0, 1, 2]) == []

    def change(rows: torch.Tensor) -> None:
        rows[END] *= 0.01
        rows[0] = rows[1]

    assert untrained_tokens(spoiled(change), 320, [0, 1, 2]) == [0, 1, 2]


def test_an_untrained_end_of_turn_is_reported(
    spoiled: Callable[[Callable[[torch.Tensor], None]], Path], recipe_of: Callable[..., Recipe], tmp_path: Path
) -> None:
    folder = spoiled(lambda rows: rows[END].zero_())
    recipe = recipe_of(base=f"dir:{folder}", optimisation={"max_steps": 2})
    assert any("<|im_end|>" in line for line in plan(recipe, None, others=False).as_json()["warnings"])
    console = Console(record=True, width=200, file=io.StringIO())
    report = run(recipe, None, tmp_path / "out", console=console)
    assert "never learned <|im_end|>" in console.export_text()
    assert any("<|im_end|>" in line for line in report.manifest.provenance["warnings"])
