"""Fixtures: a registry, a cache of its own for every test, and one tiny base for all."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from loradeck_registry.registry import Registry
from tests.registry.azurite import PROGRAM as AZURITE
from tests.registry.azurite import azurite, make_container
from tests.registry.s3_server import make_bucket, s3_server


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of an S3-protocol server."""
    with s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an emulator of Azure's blob storage."""
    with azurite(tmp_path_factory.mktemp("azurite")) as address:
        yield address


@pytest.fixture(params=["folder", "memory", "s3", *(["azure"] if AZURITE else [])])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """An empty registry, on every kind of store that runs here."""
    name = uuid.uuid4().hex
    if request.param == "folder":
        return Registry.init(tmp_path / "registry")
    if request.param == "memory":
        return Registry.init(f"memory://{name}")
    if request.param == "azure":
        make_container(request.getfixturevalue("azure"), f"container-{name}")
        return Registry.init(f"az://container-{name}/some/prefix")
    make_bucket(request.getfixturevalue("s3"), f"bucket-{name}")
    return Registry.init(f"s3://bucket-{name}/some/prefix")


@pytest.fixture
def folder_registry(tmp_path: Path) -> Registry:
    """An empty registry on a local folder."""
    return Registry.init(tmp_path / "registry")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tied Qwen2 base with 64 reserved rows."""
    pytest.importorskip("torch", reason="needs the train extra")
    from tests.support.tiny import make_tiny_base

    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")
