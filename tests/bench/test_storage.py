"""Storage rows come from the manifests of a real registry."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from loradeck_bench.storage import storage_report, storage_rows
from loradeck_bench.storage.delta import newest_delta
from loradeck_registry.manifest import BaseIdentity, File, Lora, Manifest
from loradeck_registry.registry import Registry
from tests.registry.support import push_base, push_full

DIGEST = "sha256:" + "0" * 64


def push(registry: Registry, folder: Path, name: str, kind: Any, contents: dict[str, bytes]) -> None:
    files, paths = [], {}
    for path, content in sorted(contents.items()):
        (folder / f"{name}-{path}").write_bytes(content)
        files.append(File(path=path, sha256=sha256(content).hexdigest(), size=len(content)))
        paths[path] = folder / f"{name}-{path}"
    manifest = Manifest(
        kind=kind,
        base=BaseIdentity(reference="pocket", digest=DIGEST, compatibility=DIGEST, vocabulary=10, rows=12),
        lora=Lora(rank=8, alpha=8, target_modules=("q_proj",), dtype="bfloat16") if kind == "adapter" else None,
        files=tuple(files),
        create_time=datetime.now(UTC),
    )
    registry.push(name, manifest, paths)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.init(tmp_path / "registry", cache=tmp_path / "cache")


def test_ratios_are_against_the_full_checkpoint(registry: Registry, tmp_path: Path) -> None:
    push(registry, tmp_path, "pocket", "base", {"config.json": b"{}", "tokenizer.json": b"t" * 98})
    push(registry, tmp_path, "clf", "adapter", {"adapter_config.json": b"{}" * 25})
    assert {row.ratio_to_full for row in storage_rows(registry)} == {None}
    push(registry, tmp_path, "clf-full", "full", {"config.json": b"{}", "tokenizer.json": b"t" * 198})
    rows = {row.artifact: row for row in storage_rows(registry)}
    assert list(rows) == ["pocket@1", "clf-full@1", "clf@1"]
    assert {name: row.bytes for name, row in rows.items()} == {"pocket@1": 100, "clf-full@1": 200, "clf@1": 50}
    assert (rows["clf@1"].ratio_to_full, rows["clf@1"].per_full, rows["clf@1"].rank) == (0.25, 4.0, 8)


def test_shared_blobs_are_stored_once(registry: Registry, tmp_path: Path) -> None:
    push(registry, tmp_path, "pocket", "base", {"config.json": b"{}", "tokenizer.json": b"t" * 98})
    push(registry, tmp_path, "clf-full", "full", {"config.json": b'{"a": 1}', "tokenizer.json": b"t" * 98})
    report = storage_report(registry)
    assert report["bytes"] == 100 + 106
    assert report["bytes_stored_once"] == 100 + 8


def test_checkpoint_that_is_stored_as_a_delta_is_measured(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "deltas", cache=tmp_path / "cache")
    push_base(registry, tmp_path / "base")
    assert newest_delta(registry) is None
    full = push_full(registry, tmp_path / "full", 1)
    found = newest_delta(registry)
    assert found is not None
    assert found.bit_exact
    assert found.raw_bytes == (tmp_path / "full" / "model.safetensors").stat().st_size
    assert found.ratio == found.stored_bytes / found.raw_bytes < 0.8
    row = next(row for row in storage_rows(registry) if row.artifact == str(full))
    assert row.stored == found.stored_bytes + (full.manifest.size - found.raw_bytes)
    assert storage_report(registry)["bytes_stored_once"] < storage_report(registry)["bytes"]
