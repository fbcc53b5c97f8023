"""Merging and extracting: what comes out answers as what went in, and the table of ranks is true."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console

from loradeck_cli.main import loradeck
from loradeck_registry.errors import InvalidError, LoradeckError, PreconditionError
from loradeck_registry.registry import Registry
from loradeck_train.convert.score import macro_f1
from loradeck_train.model.loading import load_causal
from loradeck_train.publish.low_rank import truncated
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import run

Build = Callable[..., Recipe]
BASES = ("tied_base", "untied_base")


def _call(arguments: Sequence[str | Path]) -> Result:
    return CliRunner().invoke(loradeck, ["train", *map(str, arguments)])


@pytest.fixture(params=BASES)
def trained(request: pytest.FixtureRequest, recipe_of: Build, tmp_path: Path) -> tuple[Path, Path]:
    """A registry with an adapter `clf` and a full checkpoint `full` of one base, and that base's folder."""
    base: Path = request.getfixturevalue(request.param)
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    for name, changes in (("clf", {}), ("full", {"method": "full", "lora": None})):
        recipe = recipe_of(base=f"dir:{base}", publish={"name": name}, **changes)
        run(recipe, registry, tmp_path / name, console=Console(quiet=True))
    return tmp_path / "registry", base


def _figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output + str(result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_merged_checkpoint_answers_as_adapter_and_base(trained: tuple[Path, Path], tmp_path: Path) -> None:
    where, base = trained
    common = ["--registry", where, "--base", f"dir:{base}", "--dtype", "float32", "--output", tmp_path / "merged"]
    figures = _figures(_call(["merge", "clf", *common, "--publish", "merged@prod", "--json", "-"]))
    assert figures["largest_difference"] < 2e-3 < 0.2 < figures["distance_from_base"]
    revision = Registry.open(str(where)).resolve("merged@prod")
    adapter = Registry.open(str(where)).resolve("clf")
    assert revision.manifest.kind == "full"
    assert revision.manifest.base == adapter.manifest.base
    assert revision.manifest.provenance["source_digest"] == adapter.digest
    # Rows of both sides were trained as one where they were one.
    assert figures["tied"] == load_causal(base, torch.float32).config.tie_word_embeddings


def test_an_extracted_adapter_nears_the_checkpoint_with_its_rank(
    trained: tuple[Path, Path], rows_file: Path, tmp_path: Path
) -> None:
    where, base = trained
    common = ["--registry", where, "--base", f"dir:{base}", "--dtype", "float32", "--data", rows_file, "--json", "-"]
    out = ["--output", tmp_path / "out"]
    small = _figures(_call(["extract", "full", "--rank", "2", "--score", "--ranks", "2,8,128", *common, *out]))
    table = {row["rank"]: row for row in small["table"]}
    assert table[2]["error"] > table[8]["error"] > table[128]["error"] < 5e-3
    assert table[2]["energy"] < table[8]["energy"] < table[128]["energy"]
    for row in table.values():
        assert row["energy"] == pytest.approx(1 - row["error"] ** 2, abs=1e-6)
        assert row["score"] <= 1
    # Norms went into the linear layers, embedding and head have their own pairs: at full rank biases alone are missing.
    whole = _figures(_call(["extract", "full", "--rank", "128", "--ranks", "128", *common, *out]))
    biased = load_causal(base, torch.float32).config.model_type == "qwen2"
    assert (whole["left_out"] > 0) == biased
    assert whole["divergence_from_full"] < (1e-3 if biased else 1e-6) < small["divergence_from_full"]
    layers = _figures(_call(["extract", "full", "--rank", "128", "--ranks", "128", "--no-embeddings", *common, *out]))
    assert layers["left_out"] > 2 * whole["left_out"]
    assert layers["divergence_from_full"] > whole["divergence_from_full"]
    assert layers["bytes"] < whole["bytes"]
    chosen = _figures(_call(["extract", "full", "--energy", "0.5", "--ranks", "2,8,128", *common, *out]))
    assert chosen["rank"] == next(rank for rank in (2, 8, 128) if table[rank]["energy"] >= 0.5)
    budget = ["--budget", "0.2", "--ranks", "2,8,128", "--publish", "small"]
    published = _figures(_call(["extract", "full", *budget, *common, *out]))
    assert published["full_score"] - table[published["rank"]]["score"] <= 0.2
    manifest = Registry.open(str(where)).resolve("small").manifest
    assert manifest.kind == "adapter"
    assert manifest.lora is not None
    assert manifest.lora.rank == published["rank"]
    assert manifest.size == published["bytes"]


def test_what_cannot_be_converted_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    where, base = trained
    common = ["--registry", where, "--base", f"dir:{base}", "--output", tmp_path / "out"]
    cases: list[tuple[list[str | Path], type[LoradeckError], str]] = [
        (["merge", "full"], PreconditionError, "NOT_AN_ADAPTER"),
        (["extract", "clf", "--rank", "4"], PreconditionError, "NOT_A_CHECKPOINT"),
        (["extract", "full", "--energy", "1", "--ranks", "1"], PreconditionError, "NO_RANK"),
    ]
    for arguments, kind, reason in cases:
        error = _call([*arguments, *common]).exception
        assert isinstance(error, kind), arguments
        assert error.reason == reason
    assert isinstance(_call(["extract", "full", *common]).exception, InvalidError)


def test_the_truncation_is_the_nearest_matrix_of_its_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(1500, 6, generator=generator) @ torch.randn(6, 1200, generator=generator)
    for shape in ((1500, 1200), (300, 200)):
        matrix = low[: shape[0], : shape[1]]
        exact = truncated(matrix, 6)
        torch.testing.assert_close(exact.b @ exact.a, matrix, rtol=1e-3, atol=1e-3)
        assert exact.share == pytest.approx(1, abs=1e-5)
        cut = truncated(matrix, 3)
        values = torch.linalg.svdvals(matrix)
        lost = float((matrix - cut.b @ cut.a).norm())
        assert lost == pytest.approx(float(values[3:].norm()), rel=0.02)
        assert cut.energy - cut.kept == pytest.approx(lost**2, rel=0.05)


def test_macro_f1_is_the_mean_over_classes() -> None:
    assert macro_f1([0, 1, 2], [0, 1, 2]) == 1
    # Class 0: one of two found, F1 2/3; class 1: found with one mistake, F1 2/3; class 2: never, 0.
    assert macro_f1([0, 0, 1, 2], [0, 1, 1, 0]) == pytest.approx((0.5 + 2 / 3 + 0) / 3)
