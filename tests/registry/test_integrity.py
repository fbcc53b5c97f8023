"""Damage, loss and leftovers: reads notice, verify names, the cache heals."""

import os
from pathlib import Path

import pytest

from loradeck_registry import layout
from loradeck_registry.errors import DamagedError, NotFoundError
from loradeck_registry.registry import Registry, Revision
from tests.registry.support import content, flip, objects, overwrite, push, remove


@pytest.fixture
def revision(registry: Registry, tmp_path: Path) -> Revision:
    """One pushed revision, prod."""
    return push(registry, tmp_path / "a", alias="prod")


def _blob(revision: Revision) -> str:
    return layout.blob(revision.manifest.files[-1].sha256)


def _flip_file(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))


def test_clean_registry_verifies(registry: Registry, revision: Revision) -> None:
    report = registry.verify()
    assert report.clean
    assert (report.names, report.revisions, report.aliases, report.blobs) == (1, 1, 1, 2)
    assert report.bytes == revision.manifest.size
    assert report.orphaned == []


def test_damaged_blob_is_named_when_read_and_by_verify(registry: Registry, revision: Revision) -> None:
    key = _blob(revision)
    flip(registry, key)
    with pytest.raises(DamagedError) as caught:
        registry.local(revision)
    assert caught.value.metadata["object"] == key
    assert "adapter_model.safetensors of clf@1" in caught.value.message
    assert "\n" not in caught.value.message
    assert [finding.object for finding in registry.verify().damaged] == [key]


def test_truncated_blob_is_replaced_by_the_next_push_of_its_file(
    registry: Registry, revision: Revision, tmp_path: Path
) -> None:
    overwrite(registry, _blob(revision), content(registry, _blob(revision))[:-1])
    assert not registry.verify().clean
    push(registry, tmp_path / "a")
    assert registry.verify().clean


def test_lost_blob_is_missing(registry: Registry, revision: Revision) -> None:
    remove(registry, _blob(revision))
    with pytest.raises(NotFoundError) as caught:
        registry.local(revision)
    assert caught.value.reason == "MISSING_OBJECT"
    assert len(registry.verify().missing) == 1


def test_damaged_manifest_is_noticed(registry: Registry, revision: Revision) -> None:
    flip(registry, layout.manifest(revision.digest))
    fresh = Registry.open(registry.url)
    with pytest.raises(DamagedError, match="manifest of clf@1"):
        fresh.resolve("clf")
    assert len(fresh.verify().damaged) == 1


def test_damaged_record_is_noticed(registry: Registry, revision: Revision) -> None:
    overwrite(registry, "revisions/clf/00000001.json", b"{")
    with pytest.raises(DamagedError, match=r"00000001\.json"):
        Registry.open(registry.url).resolve("clf@1")
    assert not registry.verify().clean


def test_damaged_record_is_the_only_thing_that_is_wrong(registry: Registry, revision: Revision, tmp_path: Path) -> None:
    push(registry, tmp_path / "a", seed=2)
    registry.move_alias("clf", "prod", "1")
    overwrite(registry, "revisions/clf/00000001.json", b"{")
    report = registry.verify()
    assert [finding.object for finding in report.damaged] == ["revisions/clf/00000001.json"]
    assert not report.missing
    assert all("no revision that can be read" in finding.why for finding in report.orphaned)


def test_gap_in_a_log_is_missing(registry: Registry, revision: Revision, tmp_path: Path) -> None:
    for seed in (2, 3):
        push(registry, tmp_path / "a", seed=seed)
    remove(registry, "revisions/clf/00000002.json")
    assert "revisions/clf/00000002.json" in [finding.object for finding in registry.verify().missing]


def test_leftovers_of_interrupted_pushes_are_orphans_and_harmless(folder_registry: Registry, tmp_path: Path) -> None:
    registry = folder_registry
    push(registry, tmp_path / "a", alias="prod")
    root = Path(registry.url)
    (root / "blobs/sha256/00").mkdir(parents=True, exist_ok=True)
    (root / "blobs/sha256/00" / ("0" * 64)).write_bytes(b"uploaded, then killed")
    (root / "revisions/clf/00000002.json#1").write_bytes(b"{")
    report = registry.verify()
    assert report.clean
    assert {finding.object for finding in report.orphaned} == {
        f"blobs/sha256/00/{'0' * 64}",
        "revisions/clf/00000002.json#1",
    }
    assert registry.resolve("clf@latest").number == 1
    assert push(registry, tmp_path / "a", seed=2).number == 2


class TestCache:
    def test_folder_holds_the_files_and_is_reused(self, registry: Registry, revision: Revision, tmp_path: Path) -> None:
        folder = registry.local(revision)
        inodes = {path.name: path.stat().st_ino for path in folder.iterdir()}
        assert set(inodes) == {"adapter_config.json", "adapter_model.safetensors"}
        assert (folder / "adapter_model.safetensors").read_bytes() == (
            tmp_path / "a" / "adapter_model.safetensors"
        ).read_bytes()
        assert registry.local(revision) == folder
        assert {path.name: path.stat().st_ino for path in folder.iterdir()} == inodes

    def test_works_while_the_store_is_away(self, registry: Registry, revision: Revision) -> None:
        folder = registry.local(revision)
        for key in objects(registry):
            if key.startswith("blobs/"):
                remove(registry, key)
        assert registry.local(revision) == folder

    def test_damage_heals_from_the_store(self, registry: Registry, revision: Revision, tmp_path: Path) -> None:
        folder = registry.local(revision)
        _flip_file(folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").unlink()
        healed = registry.local(revision)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert (healed / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
        assert registry.verify().clean

    def test_link_planted_in_the_cache_is_not_followed(
        self, registry: Registry, revision: Revision, tmp_path: Path
    ) -> None:
        folder = registry.local(revision)
        (folder / "adapter_config.json").unlink()
        (folder / "adapter_config.json").symlink_to(tmp_path / "a" / "adapter_config.json")
        assert not (registry.local(revision) / "adapter_config.json").is_symlink()

    def test_two_registries_share_one_cache(self, registry: Registry, revision: Revision) -> None:
        assert Registry.open(registry.url).local(revision) == registry.local(revision)

    def test_nothing_half_made_stays(self, registry: Registry, revision: Revision) -> None:
        flip(registry, _blob(revision))
        with pytest.raises(DamagedError):
            registry.local(revision)
        cache = Path(os.environ["LORADECK_CACHE"])
        assert not list((cache / "tmp").iterdir())
        assert not (cache / "revisions").exists()


def test_store_leaves_no_parts_after_success(registry: Registry, revision: Revision) -> None:
    assert not [key for key in objects(registry) if "#" in key]
