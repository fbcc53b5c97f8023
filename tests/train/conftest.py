"""Fixtures of the training tests: tiny bases, a small learnable set, and a recipe over both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loradeck_train.recipe.files import parse_recipe
from loradeck_train.recipe.settings import Recipe
from tests.support.tiny import make_tiny_base

TOPICS = {
    "bank": ("The bank opened a branch.", "A bank grows.", "The bank built a model."),
    "school": ("The school taught with tablets.", "A school learns.", "The school grows."),
    "solar, wind": ("Solar power grows.", "Solar is power.", "The city built solar power."),
}
ROWS = [
    {"text": f"{text} {ending}", "label": label}
    for label, texts in TOPICS.items()
    for text in texts
    for ending in ("It is a test.", "And companies change.", "What is it?", "A network grows.")
]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Two threads of a small model wait for each other longer than they compute."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tied_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 base that shares embedding and head."""
    return make_tiny_base(tmp_path_factory.mktemp("tied") / "tied", tied=True)


@pytest.fixture(scope="session")
def untied_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama base with a head of its own."""
    return make_tiny_base(tmp_path_factory.mktemp("untied") / "untied", architecture="llama", tied=False)


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """Nine texts in three classes with four endings each, as JSONL."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def tree(tied_base: Path, rows_file: Path) -> dict[str, Any]:
    """A recipe as nested mappings: float32 throughout, twelve steps."""
    return {
        "base": f"dir:{tied_base}",
        "method": "lora",
        "lora": {"rank": 4, "alpha": 8},
        "data": {"source": str(rows_file)},
        "task": {"kind": "classification"},
        "optimisation": {"learning_rate": 5e-3, "max_steps": 12, "batch_size": 6, "warmup_steps": 2},
        "precision": "fp32",
        "publish": {"dtype": "float32", "probe_prompts": 4},
    }


@pytest.fixture
def recipe_of(tree: dict[str, Any]) -> Callable[..., Recipe]:
    """The recipe with changes: `recipe_of(seed=1, lora={"rank": 2})`; a mapping is merged, None takes a key away."""

    def build(**changes: Any) -> Recipe:
        merged = dict(tree)
        for key, value in changes.items():
            if value is None:
                merged.pop(key, None)
            elif isinstance(value, dict):
                merged[key] = {k: v for k, v in {**merged.get(key, {}), **value}.items() if v is not None}
            else:
                merged[key] = value
        return parse_recipe(merged)

    return build
