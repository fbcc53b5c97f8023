"""The read cache: bounded, shared by processes, and never without what somebody uses."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from loradeck_registry.cache import Cache, default_limit, holds
from loradeck_registry.cache.eviction import evict
from loradeck_registry.cache.settings import LIMIT
from loradeck_registry.errors import InvalidError, UnavailableError
from loradeck_registry.registry import Registry, Revision
from tests.registry.support import make_manifest, push_base, push_full

SIZE = 100_000
ROOT = Path(__file__).parents[2]


def _push(registry: Registry, folder: Path, number: int) -> Revision:
    """A revision of SIZE bytes of its own, and a file that all share."""
    folder.mkdir(exist_ok=True)
    (folder / "notes.json").write_text("{}")
    (folder / "large.txt").write_bytes(bytes([number]) * SIZE)
    files = {"notes.json": folder / "notes.json", "large.txt": folder / "large.txt"}
    return registry.push(f"name-{number}", make_manifest(files), files)


@pytest.fixture
def five(registry: Registry, tmp_path: Path) -> list[Revision]:
    """Five revisions."""
    return [_push(registry, tmp_path / "files", number) for number in range(1, 6)]


def _open(registry: Registry, cache: Path, limit: int = 3 * SIZE) -> Registry:
    return Registry.open(registry.url, cache=cache, cache_limit=limit)


def _age(cache: Path, *revisions: Revision) -> None:
    """Let these look as if they had been used long ago, the first the longest."""
    for number, revision in enumerate(revisions):
        then = time.time() - 10_000 + number
        os.utime(cache / "revisions" / revision.digest.removeprefix("sha256:"), (then, then))


def _bytes(cache: Path) -> int:
    """Bytes on disk below a folder, hard links counted once."""
    states = [path.stat() for part in ("blobs", "revisions") for path in (cache / part).rglob("*") if path.is_file()]
    return sum({state.st_ino: state.st_size for state in states}.values())


def test_least_recently_used_goes_and_the_rest_stays(registry: Registry, five: list[Revision], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for revision in five[:3]:
        _open(registry, cache, LIMIT).local(revision)
    _age(cache, five[1], five[0], five[2])
    _open(registry, cache).local(five[0])
    fresh = _open(registry, cache)
    fresh.local(five[3])
    assert [fresh.is_local(revision) for revision in five[:4]] == [True, False, False, True]
    assert _bytes(cache) <= 3 * SIZE
    assert not list((cache / "tmp").iterdir())


def test_what_this_process_uses_stays_until_it_lets_go(
    registry: Registry, five: list[Revision], tmp_path: Path
) -> None:
    mine = _open(registry, tmp_path / "cache")
    folders = [mine.local(revision) for revision in five]
    assert all((folder / "large.txt").stat().st_size == SIZE for folder in folders)
    _age(tmp_path / "cache", *five)
    for revision in five[:4]:
        mine.let_go(revision)
    done = evict(tmp_path / "cache", SIZE + 100)
    assert [mine.is_local(revision) for revision in five] == [False] * 4 + [True]
    assert (folders[4] / "large.txt").is_file()
    assert (folders[4] / "notes.json").read_text() == "{}"
    assert (done.before, done.after) == (5 * SIZE + 2, SIZE + 2)


def test_shared_file_goes_with_its_last_user(registry: Registry, five: list[Revision], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    mine = _open(registry, cache)
    mine.local(five[0])
    mine.local(five[1])
    mine.let_go(five[0])
    assert evict(cache, 0).after == SIZE + 2
    mine.let_go(five[1])
    assert evict(cache, 0).after == 0
    assert _bytes(cache) == 0


_USER = """
import sys, time
from pathlib import Path
from loradeck_registry.registry import Registry
registry = Registry.open(sys.argv[1], cache=Path(sys.argv[2]), cache_limit=0)
print(registry.local(registry.resolve("name-1")), flush=True)
time.sleep(60)
"""


def test_other_process_keeps_what_it_uses_and_a_killed_one_nothing(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    revision = _push(registry, tmp_path / "files", 1)
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", _USER, registry.url, str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as user:
        assert user.stdout is not None
        folder = Path(user.stdout.readline().strip())
        _age(cache, revision)
        assert evict(cache, 0).gone == ()
        assert (folder / "large.txt").is_file()
        (cache / "tmp").mkdir(exist_ok=True)
        holder = next((cache / "holders").glob("*.lock")).stem
        (cache / "tmp" / f"{holder}.half-made").mkdir()
        evict(cache, 0)
        assert (cache / "tmp" / f"{holder}.half-made").exists()
        user.send_signal(signal.SIGKILL)
        user.wait()
        assert evict(cache, 0).gone == (folder.name,)
        assert not folder.exists()
        assert not list((cache / "holders").iterdir())
        assert not list((cache / "tmp").iterdir())


def _use(url: str, cache: Path, worker: int) -> int:
    registry = Registry.open(url, cache=cache, cache_limit=2 * SIZE)
    read = 0
    for turn in range(12):
        number = (worker + turn) % 5 + 1
        revision = registry.resolve(f"name-{number}")
        folder = registry.local(revision)
        assert (folder / "large.txt").read_bytes() == bytes([number]) * SIZE
        assert (folder / "notes.json").read_text() == "{}"
        registry.let_go(revision)
        read += 1
    return read


def test_processes_that_evict_each_other_s_files_read_them_whole(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    for number in range(1, 6):
        _push(registry, tmp_path / "files", number)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        reads = pool.map(_use, [registry.url] * 4, [tmp_path / "shared"] * 4, range(4))
        assert sum(reads) == 48
    evict(tmp_path / "shared", 2 * SIZE)
    assert _bytes(tmp_path / "shared") <= 2 * SIZE


def test_evicted_revision_is_fetched_again(registry: Registry, five: list[Revision], tmp_path: Path) -> None:
    mine = _open(registry, tmp_path / "cache")
    folder = mine.local(five[0])
    mine.let_go(five[0])
    evict(tmp_path / "cache", 0)
    assert not folder.exists()
    assert (mine.local(five[0]) / "large.txt").stat().st_size == SIZE


def test_source_of_a_delta_is_an_entry_of_its_own(registry: Registry, tmp_path: Path) -> None:
    push_base(registry, tmp_path / "base")
    full = push_full(registry, tmp_path / "full", 1)
    cache = tmp_path / "cache"
    mine = _open(registry, cache, LIMIT)
    mine.local(full)
    copies = 1 if registry._store.folder is None else 0
    assert len([path for path in (cache / "blobs").rglob("*") if path.is_file()]) == 2 + copies
    evict(cache, full.manifest.size)
    assert len([path for path in (cache / "blobs").rglob("*") if path.is_file()]) == 2
    assert mine.is_local(full)


def test_forked_child_does_not_let_go_for_its_parent(folder_registry: Registry, tmp_path: Path) -> None:
    revision = _push(folder_registry, tmp_path / "files", 1)
    mine = _open(folder_registry, tmp_path / "cache", 0)
    mine.local(revision)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=mine.let_go, args=(revision,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert evict(tmp_path / "cache", 0).gone == ()
    assert mine.is_local(revision)


@pytest.mark.parametrize(
    ("text", "limit"), [("", LIMIT), ("20GB", 20 * 10**9), ("1.5 gb", 1_500_000_000), ("1000", 1000), ("5m", 5 * 10**6)]
)
def test_limit_from_the_environment(text: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_CACHE_LIMIT", text)
    assert default_limit() == limit
    assert Cache(Path("anywhere")).limit == limit


def test_bad_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADECK_CACHE_LIMIT", "much")
    with pytest.raises(InvalidError, match="LORADECK_CACHE_LIMIT"):
        default_limit()


def test_cache_that_is_locked_for_long_says_so(
    folder_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = _push(folder_registry, tmp_path / "files", 1)
    mine = _open(folder_registry, tmp_path / "cache")
    monkeypatch.setattr(holds, "_WAIT", 0.1)
    (tmp_path / "cache").mkdir(exist_ok=True)
    command = [sys.executable, "-c", _LOCKER, str(tmp_path / "cache" / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as locker:
        assert locker.stdout is not None
        assert locker.stdout.readline()
        try:
            with pytest.raises(UnavailableError) as caught:
                mine.local(revision)
        finally:
            locker.kill()
            locker.wait()
    assert caught.value.reason == "CACHE_LOCKED"
    assert mine.local(revision).is_dir()


_LOCKER = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""
