"""Push, resolve, pull: what a revision is and what readers see."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from loradeck_registry import layout
from loradeck_registry.errors import (
    DamagedError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from loradeck_registry.manifest import File
from loradeck_registry.registry import Registry
from tests.registry.support import make_files, make_manifest, objects, overwrite, push


def test_revisions_count_up_and_are_their_content(registry: Registry, tmp_path: Path) -> None:
    first, second = (push(registry, tmp_path / "a", seed=seed) for seed in (1, 2))
    assert (first.number, second.number) == (1, 2)
    assert registry.resolve("clf@1") == first
    assert registry.resolve(f"clf@{second.digest}") == second
    assert registry.resolve("clf@latest") == second
    assert registry.revisions("clf") == [first, second]
    assert registry.names() == ["clf"]


def test_layout_is_the_documented_one(registry: Registry, tmp_path: Path) -> None:
    revision = push(registry, tmp_path / "a", alias="prod")
    keys = set(objects(registry))
    assert "revisions/clf/00000001.json" in keys
    assert "aliases/clf/prod/00000001.json" in keys
    hexdigits = revision.digest.removeprefix("sha256:")
    assert f"manifests/sha256/{hexdigits[:2]}/{hexdigits}" in keys
    for file in revision.manifest.files:
        assert f"blobs/sha256/{file.sha256[:2]}/{file.sha256}" in keys
    minute = f"{datetime.now(UTC):%Y%m%dT%H}"
    assert all(key.startswith(f"changes/{minute}") for key in keys if key.startswith("changes/"))


def test_equal_files_are_stored_once(registry: Registry, tmp_path: Path) -> None:
    push(registry, tmp_path / "a", "one", seed=1)
    push(registry, tmp_path / "b", "two", seed=1)
    assert sum(key.startswith("blobs/") for key in objects(registry)) == 2


def test_pushing_the_same_manifest_again_is_no_new_revision(registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    manifest = make_manifest(files)
    assert registry.push("clf", manifest, files) == registry.push("clf", manifest, files)
    assert len(registry.revisions("clf")) == 1


def test_kind_of_a_name_does_not_change(registry: Registry, tmp_path: Path) -> None:
    push(registry, tmp_path / "a")
    files = make_files(tmp_path / "b", seed=2)
    with pytest.raises(PreconditionError) as caught:
        registry.push("clf", make_manifest(files, kind="full", lora=None), files)
    assert caught.value.reason == "KIND_CHANGED"
    assert len(registry.revisions("clf")) == 1


def test_bare_name_is_prod_else_latest(registry: Registry, tmp_path: Path) -> None:
    for seed in (1, 2):
        push(registry, tmp_path / "a", seed=seed)
    assert registry.resolve("clf").number == 2
    registry.move_alias("clf", "prod", "1")
    assert registry.resolve("clf").number == 1
    assert registry.resolve("clf@latest").number == 2


@pytest.mark.parametrize(
    ("reference", "reason", "words"),
    [
        ("clg", "NAME_NOT_FOUND", "clf"),
        ("clf@9", "REVISION_NOT_FOUND", "latest is 1"),
        ("clf@staging", "ALIAS_NOT_FOUND", "prod"),
        (f"clf@sha256:{'0' * 64}", "REVISION_NOT_FOUND", "digest"),
    ],
)
def test_what_is_unknown_is_named_with_what_exists(
    registry: Registry, tmp_path: Path, reference: str, reason: str, words: str
) -> None:
    push(registry, tmp_path / "a", alias="prod")
    with pytest.raises(NotFoundError) as caught:
        registry.resolve(reference)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("reference", ["CLF", "../clf", "clf@../x", "clf@", "clf@01", "clf@sha256:12", "ä", "a/b", ""])
def test_malformed_reference_is_invalid(registry: Registry, reference: str) -> None:
    with pytest.raises(InvalidError):
        registry.resolve(reference)


def test_reader_of_another_process_sees_new_revisions(registry: Registry, tmp_path: Path) -> None:
    reader = Registry.open(registry.url)
    for seed in (1, 2, 3):
        push(registry, tmp_path / "a", seed=seed, alias="prod")
        assert reader.resolve("clf").number == seed
        assert reader.resolve("clf@latest").number == seed


def test_pull_gives_the_files_and_the_manifest(registry: Registry, tmp_path: Path) -> None:
    revision = push(registry, tmp_path / "a")
    registry.pull(revision, tmp_path / "out")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["kind"] == "adapter"


def test_pull_does_not_touch_a_folder_in_use(registry: Registry, tmp_path: Path) -> None:
    revision = push(registry, tmp_path / "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(PreconditionError) as caught:
        registry.pull(revision, tmp_path / "out")
    assert caught.value.reason == "NOT_EMPTY"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_pull_of_a_damaged_revision_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    revision = push(registry, tmp_path / "a")
    overwrite(registry, layout.blob(revision.manifest.files[-1].sha256), b"rot")
    with pytest.raises(DamagedError):
        registry.pull(revision, tmp_path / "out")
    assert not any(path.name.startswith((".out", "out")) for path in tmp_path.iterdir())


def test_file_that_differs_from_the_manifest_is_refused(registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    manifest = make_manifest(files)
    (tmp_path / "a" / "adapter_config.json").write_text('{"peft_type": "LoRA"}')
    with pytest.raises(PreconditionError) as caught:
        registry.push("clf", manifest, files)
    assert caught.value.reason == "FILE_CHANGED"
    assert registry.names() == []
    assert not any("blobs" in key and key.endswith(manifest.files[0].sha256) for key in objects(registry))


def test_known_blob_does_not_hide_a_file_that_differs(registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    manifest = make_manifest(files)
    registry.push("clf", manifest, files)
    (tmp_path / "a" / "adapter_config.json").write_text('{"peft_type": "LORB"}')
    changed = make_manifest(make_files(tmp_path / "b"))
    with pytest.raises(PreconditionError):
        registry.push("clf", changed, files)


def test_files_must_be_those_of_the_manifest(registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    manifest = make_manifest(files)
    with pytest.raises(InvalidError, match=r"adapter_config\.json"):
        registry.push("clf", manifest, {"adapter_model.safetensors": files["adapter_model.safetensors"]})


def test_change_markers_cover_revisions_and_aliases(registry: Registry, tmp_path: Path) -> None:
    start = datetime.now(UTC)
    push(registry, tmp_path / "a", alias="prod")
    changes = registry.changes(start)
    assert [(change.name, change.alias) for change in changes] == [("clf", None), ("clf", "prod")]
    assert registry.changes(start + timedelta(minutes=3)) == []
    assert len(registry.changes(start - timedelta(days=3))) == 2


class TestOpening:
    def test_absent_folder(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="registry init") as caught:
            Registry.open(tmp_path / "absent")
        assert caught.value.reason == "NO_REGISTRY"

    def test_folder_that_is_no_registry(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="is not a registry"):
            Registry.open(tmp_path)

    def test_init_twice_keeps_what_is_there(self, registry: Registry, tmp_path: Path) -> None:
        push(registry, tmp_path / "a")
        assert Registry.init(registry.url).names() == ["clf"]

    def test_init_refuses_a_folder_of_other_things(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(PreconditionError) as caught:
            Registry.init(tmp_path)
        assert caught.value.reason == "NOT_EMPTY"

    def test_init_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(PreconditionError) as caught:
            Registry.init(tmp_path / "file" / "registry")
        assert caught.value.reason == "NOT_PERMITTED"

    def test_file_address(self, folder_registry: Registry) -> None:
        assert Registry.open(f"file://{folder_registry.url}").url == folder_registry.url

    @pytest.mark.parametrize("url", ["gopher://x", "s3://", "s3://bucket/a/../b", "file://host/x", "s3://k:secret@b/x"])
    def test_unknown_address(self, url: str) -> None:
        with pytest.raises(InvalidError) as caught:
            Registry.open(url)
        assert "secret" not in caught.value.message

    def test_newer_format_asks_for_an_upgrade(self, registry: Registry) -> None:
        overwrite(registry, layout.MARKER, b'{"format": 2}')
        with pytest.raises(PreconditionError, match="upgrade"):
            Registry.open(registry.url)


def test_folder_that_refuses_writes_is_one_clear_line(folder_registry: Registry, tmp_path: Path) -> None:
    registry = folder_registry
    files = make_files(tmp_path / "a")
    manifest = make_manifest(files)
    # A file where a folder is needed refuses writes for every user, root included.
    (Path(registry.url) / "blobs").write_text("in the way")
    with pytest.raises((PreconditionError, UnavailableError)) as caught:
        registry.push("clf", manifest, files)
    assert "cannot" in caught.value.message
    assert "\n" not in caught.value.message


def test_paths_that_leave_the_revision_cannot_be_described() -> None:
    for path in ("../x", "/x", "a/../b", ".hidden", "a//b", "a\\b", "ä"):
        with pytest.raises(ValueError, match="path"):
            File(path=path, sha256="0" * 64, size=0)
