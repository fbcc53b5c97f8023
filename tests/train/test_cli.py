"""`loradeck train` on the command line."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loradeck_cli.main import loradeck
from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_registry.registry import Registry


def _call(arguments: Sequence[str | Path]) -> Result:
    return CliRunner().invoke(loradeck, ["train", *map(str, arguments)])


@pytest.fixture
def common(tied_base: Path, rows_file: Path) -> list[str]:
    return ["--base", f"dir:{tied_base}", "--data", str(rows_file), "--set", "precision=fp32"]


def test_run_publishes(common: list[str], tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    figures = tmp_path / "figures.json"
    where = ["--registry", tmp_path / "registry", "--output", tmp_path / "out", "--json", figures]
    short = ["--set", "optimisation.epochs=1"]
    result = _call(["run", "pocket/clf-lora", *common, *short, "--publish", "clf@prod", *where])
    assert result.exit_code == 0, result.output
    revision = registry.resolve("clf@prod")
    written = json.loads(figures.read_text())
    assert written["revision"] == str(revision) == "clf@1"
    assert written["digest"] == revision.digest
    assert written["steps"] == 3
    assert "reload check" in result.output


def test_plan_agrees_with_the_run(common: list[str], tmp_path: Path) -> None:
    for recipe, more in (("pocket/clf-lora", []), ("pocket/clf-full", ["--set", "publish.dtype=float32"])):
        planned = json.loads(_call(["plan", recipe, *common, *more, "--json", "-"]).stdout)
        assert planned["seconds"] > 0
        assert planned["memory"]["peak"] > planned["memory"]["weights"] > 0
        result = _call(["run", recipe, *common, *more, "--output", tmp_path / recipe, "--json", tmp_path / "f.json"])
        assert result.exit_code == 0, result.output
        ran = json.loads((tmp_path / "f.json").read_text())
        for key in ("steps", "tokens", "parameters", "trainable_parameters", "trainable_share", "truncated"):
            assert planned[key] == ran[key], key
        assert 0 <= ran["bytes"] - planned["published_bytes"] < 0.2 * ran["bytes"]


def test_errors_come_before_any_work(common: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    unknown = _call(["run", "pocket/clf-lora", *common, "--set", "lora.rnk=3", "--output", out]).exception
    assert isinstance(unknown, InvalidError)
    assert "`rank`" in unknown.message
    no_registry = _call(["run", "pocket/clf-lora", *common, "--publish", "clf", "--output", out]).exception
    assert isinstance(no_registry, InvalidError)
    bad_name = _call(["run", "pocket/clf-lora", *common, "--publish", "Bad Name", "--output", out]).exception
    assert isinstance(bad_name, InvalidError)
    no_base = _call(["run", "pocket/clf-lora", "--base", "dir:/absent", "--output", out]).exception
    assert isinstance(no_base, NotFoundError)
    assert not out.exists()
