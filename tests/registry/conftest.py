"""Fixtures: a registry, a cache of its own for every test, and one tiny base for all."""

from pathlib import Path

import pytest

from loradeck_registry.registry import Registry


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry."""
    return Registry.init(tmp_path / "registry")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tied Qwen2 base with 64 reserved rows."""
    pytest.importorskip("torch", reason="needs the train extra")
    from tests.support.tiny import make_tiny_base

    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")
