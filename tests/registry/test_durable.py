"""Local writes: on disk before they are seen, in the order they were made, whole or not at all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loradeck_registry.registry import Registry
from loradeck_registry.stores import durable
from tests.registry.support import push


class _Disk:
    """Notes what is synced, and what was seen before it was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.named: list[tuple[Path, bool, bool]] = []
        self._folders: dict[int, int] = {}
        sync, link, replace = os.fsync, os.link, Path.replace
        count = 0

        def fsync(handle: int) -> None:
            nonlocal count
            count += 1
            inode = os.fstat(handle).st_ino
            self.synced.add(inode)
            self._folders[inode] = count
            sync(handle)

        def seen(part: Path, final: Path) -> None:
            inode = part.stat().st_ino
            folder = final.parent.stat().st_ino
            self.named.append((final, inode in self.synced, folder in self._folders))

        def linked(part: Path, final: Path) -> None:
            seen(part, final)
            link(part, final)

        def replaced(part: Path, final: Path) -> Path:
            seen(part, final)
            return replace(part, final)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(durable.os, "link", linked)
        monkeypatch.setattr(Path, "replace", replaced)

    def last_sync(self, folder: Path) -> int:
        """When the folder was last synced, as a count; 0 if never."""
        return self._folders.get(folder.stat().st_ino, 0)


def test_everything_before_a_record_is_on_disk_when_it_appears(
    folder_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(folder_registry.url)
    disk = _Disk(monkeypatch)
    revision = push(folder_registry, tmp_path / "a", alias="prod")
    mine = [(path.relative_to(root), synced) for path, synced, _ in disk.named if path.is_relative_to(root)]
    kept = [(path, synced) for path, synced in mine if path.parts[0] not in ("leases", "quarantine")]
    kinds = [path.parts[0] for path, _ in kept]
    assert kinds.index("revisions") > max(number for number, kind in enumerate(kinds) if kind in ("blobs", "manifests"))
    assert all(synced for _, synced in kept), kept
    assert not any(synced for path, synced in mine if path.parts[0] == "leases")
    orders = [disk.last_sync(root / path.parent) for path, _ in kept]
    assert all(orders)
    blobs = [disk.last_sync((root / path).parent) for path, _ in kept if path.parts[0] == "blobs"]
    assert max(blobs) < disk.last_sync(root / "revisions" / revision.name)
    assert disk.last_sync(root / "revisions") > 0


def test_create_is_refused_where_something_is(tmp_path: Path) -> None:
    assert durable.put_if_absent(tmp_path, "a/b/key", b"one")
    assert not durable.put_if_absent(tmp_path, "a/b/key", b"two")
    assert (tmp_path / "a/b/key").read_bytes() == b"one"
    assert os.listdir(tmp_path / "a/b") == ["key"]


def test_of_two_that_race_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other has created it between the look and the link."""
    link = os.link

    def overtaken(part: Path, final: Path) -> None:
        final.write_bytes(b"other")
        link(part, final)

    monkeypatch.setattr(durable.os, "link", overtaken)
    assert not durable.put_if_absent(tmp_path, "key", b"mine")
    assert (tmp_path / "key").read_bytes() == b"other"
    assert os.listdir(tmp_path) == ["key"]


def test_broken_off_write_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        durable.put(tmp_path, "a/key", chunks())
    assert os.listdir(tmp_path / "a") == []


def test_replaces_in_one_step(tmp_path: Path) -> None:
    durable.put(tmp_path, "key", [b"one"])
    durable.put(tmp_path, "key", [b"t", b"wo"])
    assert (tmp_path / "key").read_bytes() == b"two"
