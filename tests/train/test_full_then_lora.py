"""LoRA on a fully tuned base: the base is a revision of the registry."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_train.convert.merge import merge
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import RunReport, run

Build = Callable[..., Recipe]


def _run(recipe: Recipe, registry: Registry, output: Path) -> RunReport:
    return run(recipe, registry, output, console=Console(quiet=True))


@pytest.mark.parametrize("base", ["tied_base", "untied_base"])
def test_adapter_of_a_full_checkpoint(
    base: str, recipe_of: Build, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    folder = request.getfixturevalue(base)
    full = _run(
        recipe_of(base=f"dir:{folder}", method="full", lora=None, publish={"name": "full", "alias": "prod"}),
        registry,
        tmp_path / "full",
    )
    rows = tmp_path / "moods.jsonl"
    texts = ("The bank opened a branch.", "The school grows.", "Solar is power.", "The city built a network.")
    rows.write_text(
        "".join(json.dumps({"text": f"{t} {e}", "label": m}) + "\n" for t in texts for m, e in _MOODS.items())
    )
    second = _run(
        recipe_of(
            base="full@prod",
            data={"source": str(rows)},
            publish={"name": "mood"},
            optimisation={"max_steps": 12, "batch_size": 4},
        ),
        registry,
        tmp_path / "mood",
    )
    manifest = second.manifest
    assert manifest.kind == "adapter"
    # The base is the checkpoint, by name and by digest, and not the base that it was tuned from.
    assert manifest.base.reference == "full@1"
    assert manifest.base.digest != full.manifest.base.digest
    assert manifest.base.vocabulary == full.manifest.base.vocabulary + 3
    # Its label tokens lie behind those that the checkpoint has learned.
    used = {token["id"] for token in full.manifest.task["added_tokens"]}  # type: ignore[index]
    added = {token["id"] for token in manifest.task["added_tokens"]}  # type: ignore[index]
    assert min(added) == max(used) + 1
    losses = [entry["loss"] for entry in second.result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert second.check.mean_difference <= second.check.tolerance
    merged = merge(registry, "mood", tmp_path / "merged", base=None, publish=("both", None), dtype="float32")
    assert merged["base"] == "full@1"
    assert registry.resolve("both").manifest.kind == "full"
    with pytest.raises(PreconditionError) as caught:
        merge(registry, "mood", tmp_path / "merged", base=f"dir:{folder}", publish=None, dtype="float32")
    assert caught.value.reason == "BASE_MISMATCH"


_MOODS = {"glad": "And companies change.", "sad": "It is a test.", "calm": "What is it?"}
