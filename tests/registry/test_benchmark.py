"""The benchmark: it measures a registry that is really there, and its figures are plausible."""

import json
from pathlib import Path

import pytest

from loradeck_registry.benchmark import main, measure
from loradeck_registry.registry import Registry


def test_it_measures_what_it_says(tmp_path: Path) -> None:
    result = measure(tmp_path, names=20, revisions=3, lookups=50)
    registry = Registry.open(tmp_path / "registry")
    assert len(registry.names()) == 20
    assert registry.resolve("adapter-000007").number == 3
    assert 0 < result["resolve_warm_ms"]["p50"] <= result["resolve_warm_ms"]["p99"] <= result["resolve_warm_ms"]["max"]
    assert result["list_all_seconds"] > 0


def test_json_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--names", "3", "--revisions", "1", "--lookups", "5", "--json", "-"])
    assert json.loads(capsys.readouterr().out)["names"] == 3
