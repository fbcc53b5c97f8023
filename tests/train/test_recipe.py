"""Recipes: what is refused and how, inheritance, overrides, and that every shipped one parses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_train.recipe.files import SHIPPED, load_recipe, shipped_recipes
from loradeck_train.recipe.settings import Recipe

FILES = sorted(SHIPPED.glob("**/*.yaml"))


def test_recipes_are_shipped() -> None:
    assert len(FILES) == len(shipped_recipes()) > 0
    assert {"pocket/clf-lora", "pocket/clf-full", "pocket/qa-short-lora", "pocket/qa-long-lora"} <= set(
        shipped_recipes()
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SHIPPED).as_posix())
def test_shipped_recipe_parses(path: Path) -> None:
    by_path = load_recipe(str(path))
    by_name = load_recipe(path.relative_to(SHIPPED).with_suffix("").as_posix())
    assert by_path == by_name


@pytest.mark.parametrize(
    ("setting", "field", "words"),
    [
        ("optimisation.learnin_rate=1e-4", "optimisation.learnin_rate", ["learnin_rate", "`learning_rate`"]),
        ("lora.ranks=8", "lora.ranks", ["`rank`"]),
        ("sed=8", "sed", ["`seed`"]),
        ("data.validation.fractio=0.1", "data.validation.fractio", ["`fraction`"]),
        ("lora.rank=0", "lora.rank", ["lora.rank", "greater than or equal to 1"]),
        ("optimisation.max_steps=5", "optimisation", ["`epochs`", "`max_steps`"]),
        ("method=full", "recipe", ["`lora`", "full"]),
        ("task.template=hello", "task", ["`template`", "no {field}"]),
        ("task.template='{text'", "task", ["`template`", "brace"]),
        ("task.labels=[a, a]", "task", ["`labels`", "all different"]),
        ("task.labels=[a]", "task", ["`labels`", "two or more"]),
    ],
)
def test_bad_key_is_named(setting: str, field: str, words: list[str]) -> None:
    with pytest.raises(InvalidError) as caught:
        load_recipe("pocket/clf-lora", sets=[setting])
    assert caught.value.reason == "BAD_RECIPE"
    assert caught.value.field == field
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimisation: {learnin_rate: 1e-3, epochs: 1}", ["`optimisation.learnin_rate`", "`learning_rate`"]),
        ("optimization: {learning_rate: 1e-3, epochs: 1}", ["`optimization`", "`optimisation`"]),
        ("optimisation: [1e-3]", ["`optimisation` must be a map", "learning_rate"]),
    ],
)
def test_misspelt_key_is_named_rather_than_the_one_it_leaves_out(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"base: b\nmethod: lora\ndata: {{source: x.csv}}\ntask: {{kind: classification}}\n{text}\n")
    with pytest.raises(InvalidError) as caught:
        load_recipe(str(path))
    for word in words:
        assert word in caught.value.message
    assert "missing" not in caught.value.message


def test_extends_overrides_and_removes(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: pocket/clf-lora\nmethod: full\nlora: null\noptimisation: {learning_rate: 3e-4}\n")
    parent, recipe = load_recipe("pocket/clf-lora"), load_recipe(str(child))
    assert recipe.lora is None
    assert recipe.optimisation.learning_rate == 3e-4
    assert recipe.optimisation.batch_size == parent.optimisation.batch_size
    assert recipe.data == parent.data


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(InvalidError, match="circle"):
        load_recipe(str(tmp_path / "a.yaml"))


def test_strength_of_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_RECIPE__SEED", "3")
    monkeypatch.setenv("LORADECK_RECIPE__OPTIMISATION__LEARNING_RATE", "1e-4")
    assert load_recipe("pocket/clf-lora").seed == 3
    recipe = load_recipe("pocket/clf-lora", {"base": "dir:x"}, ["seed=4", "base=dir:y"])
    assert (recipe.seed, recipe.base, recipe.optimisation.learning_rate) == (4, "dir:x", 1e-4)


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="pocket/clf-lora"):
        load_recipe("pocket/clf-lor")


def test_parsing_imports_no_torch() -> None:
    code = (
        "import sys; from loradeck_train.recipe.files import load_recipe; load_recipe('pocket/clf-lora');"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_defaults_of_the_adapter(recipe_of: Callable[..., Recipe]) -> None:
    assert recipe_of(lora=None).adapter.target_modules == "all-linear"
