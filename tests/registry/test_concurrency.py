"""Many writers at once, and writers that are killed: nothing is lost, nothing half-made is seen."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loradeck_registry.errors import ConflictError
from loradeck_registry.registry import Registry
from tests.registry.s3_server import make_bucket
from tests.registry.support import make_files, make_manifest, push

WRITERS = 16
ROUNDS = 5
ROOT = Path(__file__).parents[2]


def _write(url: str, folder: Path, writer: int) -> dict[str, list[object]]:
    """Push ROUNDS revisions; after each, read the alias and try to move it on by compare-and-swap."""
    registry = Registry.open(url)
    # All begin together, however long their interpreters took to start.
    (folder / f"here-{writer}").touch()
    while len(list(folder.glob("here-*"))) < WRITERS:
        time.sleep(0.01)
    pushed: list[object] = []
    moved: list[object] = []
    conflicts: list[object] = []
    for number in range(ROUNDS):
        seen = registry.aliases("clf").get("prod")
        revision = push(registry, folder / str(writer), seed=writer * ROUNDS + number, author=f"writer {writer}")
        pushed.append((revision.number, revision.digest))
        try:
            entry = registry.move_alias(
                "clf", "prod", str(revision.number), expect=seen.revision if seen else 0, who=f"writer {writer}"
            )
            moved.append((entry.number, entry.revision))
        except ConflictError:
            conflicts.append(revision.number)
        registry.move_alias("clf", "newest", str(revision.number), who=f"writer {writer}")
    return {"pushed": pushed, "moved": moved, "conflicts": conflicts}


@pytest.fixture(params=["folder", "s3"])
def shared_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """An empty registry that other processes can open."""
    if request.param == "folder":
        return Registry.init(tmp_path / "registry")
    make_bucket(request.getfixturevalue("s3"), name := f"shared-{uuid.uuid4().hex}")
    return Registry.init(f"s3://{name}/registry")


def test_sixteen_writers_lose_nothing_and_hear_of_every_conflict(shared_registry: Registry, tmp_path: Path) -> None:
    registry = shared_registry
    start = datetime.now(UTC)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WRITERS, mp_context=context) as pool:
        results = list(pool.map(_write, [registry.url] * WRITERS, [tmp_path] * WRITERS, range(WRITERS)))
    pushed = dict(item for result in results for item in result["pushed"])  # type: ignore[misc]
    total = WRITERS * ROUNDS
    assert sorted(pushed) == list(range(1, total + 1))
    assert {revision.number: revision.digest for revision in registry.revisions("clf")} == pushed
    moved = dict(item for result in results for item in result["moved"])  # type: ignore[misc]
    conflicts = [number for result in results for number in result["conflicts"]]
    assert len(moved) + len(conflicts) == total
    assert conflicts, "the writers never met: the test shows nothing"
    history = registry.history("clf", "prod")
    assert {entry.number: entry.revision for entry in history} == moved
    assert [entry.number for entry in history] == list(range(len(moved), 0, -1))
    newest = registry.history("clf", "newest")
    assert Counter(entry.revision for entry in newest) == Counter(range(1, total + 1))
    report = registry.verify()
    assert report.clean
    assert report.orphaned == []
    assert {change.alias for change in registry.changes(start)} == {None, "prod", "newest"}


def _read(url: str, cache: Path) -> str:
    registry = Registry.open(url, cache=cache)
    folder = registry.local(registry.resolve("clf"))
    return (folder / "adapter_model.safetensors").read_bytes().hex()


def test_processes_share_a_cold_cache(shared_registry: Registry, tmp_path: Path) -> None:
    registry = shared_registry
    push(registry, tmp_path / "a")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        contents = set(pool.map(_read, [registry.url] * 8, [tmp_path / "shared"] * 8))
    assert contents == {(tmp_path / "a" / "adapter_model.safetensors").read_bytes().hex()}
    assert not list((tmp_path / "shared" / "tmp").iterdir())


def test_threads_share_one_registry(registry: Registry, tmp_path: Path) -> None:
    def work(writer: int) -> list[int]:
        return [push(registry, tmp_path / str(writer), seed=writer * 10 + n, alias="prod").number for n in range(5)]

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for found in pool.map(work, range(8)) for number in found]
    assert sorted(numbers) == list(range(1, 41))
    assert registry.resolve("clf@latest").number == 40
    assert len(registry.history("clf", "prod")) == 40


def _crash(folder: Path, rounds: int, seconds: float = 850) -> dict[str, int]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.registry.crash", str(folder), str(rounds)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, int] = json.loads(done.stdout)
    return result


@pytest.mark.timeout(900)
def test_writer_killed_around_every_operation_leaves_at_most_orphans(tmp_path: Path) -> None:
    result = _crash(tmp_path, rounds=20)
    assert result["operations"] >= 10
    assert result["killed"] > result["operations"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif("LORADECK_CRASH_ROUNDS" not in os.environ, reason="set LORADECK_CRASH_ROUNDS, for example 200")
def test_writer_killed_at_many_random_points(tmp_path: Path) -> None:
    rounds = int(os.environ["LORADECK_CRASH_ROUNDS"])
    result = _crash(tmp_path, rounds, seconds=1700)
    print(json.dumps(result))
    # Some end before their time has come.
    assert result["killed"] >= result["operations"] + 0.5 * rounds


def test_kinds_cannot_race_into_one_name(registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    other = Registry.open(registry.url)
    full = make_manifest(files, kind="full", lora=None)
    log = registry._log("clf")
    read_last = log.last
    raced = False

    def last_then_overtaken() -> int:
        nonlocal raced
        last = read_last()
        if not raced:
            raced = True
            other.push("clf", full, files)
        return last

    log.last = last_then_overtaken  # type: ignore[method-assign]
    with pytest.raises(Exception, match="holds revisions of kind full"):
        registry.push("clf", make_manifest(files), files)
    assert [revision.manifest.kind for revision in other.revisions("clf")] == ["full"]
