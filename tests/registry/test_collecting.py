"""Garbage collection: what stays, what goes, and writers that come in between."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loradeck_registry import layout
from loradeck_registry.collection import leases
from loradeck_registry.collection.collecting import CollectReport, collect
from loradeck_registry.collection.retention import Retention
from loradeck_registry.errors import NotFoundError, PreconditionError
from loradeck_registry.log import encode
from loradeck_registry.registry import Registry, Revision
from tests.registry.support import flip, make_files, make_manifest, objects, overwrite, push, remove

NOW = timedelta(0)


def _gc(registry: Registry, **settings: Any) -> CollectReport:
    """Delete without a grace time."""
    return registry.collect(**({"delete": True, "grace": NOW, "wait": 0} | settings))


@pytest.fixture
def orphan(registry: Registry) -> str:
    """The key of a blob that a killed push has left."""
    key = layout.blob("0" * 64)
    overwrite(registry, key, b"uploaded, then killed")
    return key


@pytest.fixture
def five(registry: Registry, tmp_path: Path) -> list[Revision]:
    """clf@1 to clf@5."""
    return [push(registry, tmp_path / "a", seed=seed) for seed in range(1, 6)]


def test_dry_run_is_the_default_and_changes_nothing(registry: Registry, orphan: str) -> None:
    before = objects(registry)
    report = registry.collect(grace=NOW)
    assert report.dry_run
    assert [item.key for item in report.found] == [orphan]
    assert (report.bytes_found, report.bytes_freed) == (21, 0)
    assert objects(registry) == before


def test_orphan_goes_and_what_is_used_stays(registry: Registry, orphan: str, five: list[Revision]) -> None:
    before = set(objects(registry))
    report = _gc(registry)
    assert set(objects(registry)) == before - {orphan}
    assert report.bytes_freed == 21
    assert registry.verify().orphaned == []
    assert _gc(registry).found == []


def test_young_objects_stay(registry: Registry, orphan: str) -> None:
    assert registry.collect().found == []
    assert _gc(registry, grace=timedelta(minutes=1)).deleted == []


def test_retention_keeps_the_last_the_aliased_and_the_tagged(registry: Registry, five: list[Revision]) -> None:
    registry.move_alias("clf", "prod", "1")
    registry.tag(five[1], "paper")
    report = _gc(registry, retention=Retention(keep_last=2))
    fresh = Registry.open(registry.url)
    assert [revision.number for revision in fresh.revisions("clf")] == [1, 2, 4, 5]
    with pytest.raises(NotFoundError, match="removed by a garbage collection"):
        fresh.resolve("clf@3")
    assert layout.blob(five[2].manifest.files[-1].sha256) in [item.key for item in report.deleted]
    verified = fresh.verify()
    assert verified.clean
    assert verified.orphaned == []
    registry.tag(five[1], "paper", remove=True)
    _gc(registry, retention=Retention(keep_last=2))
    assert [revision.number for revision in Registry.open(registry.url).revisions("clf")] == [1, 4, 5]


def test_next_push_counts_on_after_retention(registry: Registry, five: list[Revision], tmp_path: Path) -> None:
    _gc(registry, retention=Retention(keep_last=1))
    assert push(Registry.open(registry.url), tmp_path / "a", seed=9).number == 6
    assert Registry.open(registry.url).verify().clean


def test_what_a_rollback_would_restore_stays(registry: Registry, five: list[Revision]) -> None:
    for target in ("1", "2", "5"):
        registry.move_alias("clf", "prod", target)
    _gc(registry, retention=Retention(keep_last=1))
    assert registry.rollback("clf", "prod").revision == 2
    with pytest.raises(PreconditionError) as caught:
        registry.rollback("clf", "prod")
    assert caught.value.reason == "REVISION_RETIRED"


def test_retention_of_some_names_leaves_the_others(registry: Registry, five: list[Revision], tmp_path: Path) -> None:
    for seed in (11, 12):
        push(registry, tmp_path / "b", "other", seed=seed)
    _gc(registry, retention=Retention(keep_last=1, names=frozenset({"other"})))
    fresh = Registry.open(registry.url)
    assert len(fresh.revisions("clf")) == 5
    assert [revision.number for revision in fresh.revisions("other")] == [2]


def test_held_revision_stays_until_it_is_released(registry: Registry, five: list[Revision]) -> None:
    lease = registry.hold([five[0].digest], "server-1")
    assert registry.collect(grace=NOW, retention=Retention(keep_last=1)).live_leases == 1
    _gc(registry, retention=Retention(keep_last=1))
    fresh = Registry.open(registry.url)
    assert [revision.number for revision in fresh.revisions("clf")] == [1, 5]
    assert fresh.local(fresh.resolve("clf@1")).is_dir()
    lease.release()
    _gc(registry, retention=Retention(keep_last=1))
    assert [revision.number for revision in Registry.open(registry.url).revisions("clf")] == [5]
    assert not [key for key in objects(registry) if key.startswith("leases/")]


def test_hold_of_what_is_gone_says_so(registry: Registry) -> None:
    with pytest.raises(NotFoundError) as caught:
        registry.hold([f"sha256:{'0' * 64}"])
    assert caught.value.reason == "REVISION_GONE"
    assert objects(registry) == [layout.MARKER]


def test_lease_that_has_ended_holds_nothing_and_goes(registry: Registry, five: list[Revision]) -> None:
    lease = registry.hold([five[0].digest], "dead", ttl=0.01)
    key = next(key for key in objects(registry) if key.startswith("leases/"))
    ended = (datetime.now(UTC) - timedelta(minutes=3)).isoformat()
    record = {"holder": "dead", "manifests": lease.manifests, "blobs": [], "expires": ended}
    overwrite(registry, key, encode(record))
    _gc(registry, retention=Retention(keep_last=1))
    assert key not in objects(registry)
    assert [revision.number for revision in Registry.open(registry.url).revisions("clf")] == [5]


def test_renewed_lease_is_always_seen(registry: Registry, five: list[Revision]) -> None:
    lease = registry.hold([five[0].digest], "server")
    for _ in range(5):
        lease.renew()
        assert five[0].digest in {digest for held in leases.read_leases(registry._store) for digest in held.manifests}
    lease.release()
    assert leases.read_leases(registry._store) == []


def test_lease_that_lapsed_is_noticed(registry: Registry, five: list[Revision]) -> None:
    lease = leases.take(registry._store, "slow", [five[0].digest])
    assert lease.in_force()
    lease._until = time.monotonic() - 1
    lease.touch()
    assert not lease.in_force()
    lease.renew()
    assert not lease.lapsed


def test_second_look_spares_what_is_needed_again(registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    manifest = make_manifest(files)
    registry.push("clf", manifest, files)
    remove(registry, "revisions/clf/00000001.json")
    fresh = Registry.open(registry.url)
    report = collect(
        fresh._store,
        delete=True,
        grace=NOW,
        sleep=lambda _: push(fresh, tmp_path / "a") and None,  # type: ignore[func-returns-value]
    )
    blobs = {layout.blob(file.sha256) for file in manifest.files}
    assert {item.key for item in report.kept} >= blobs
    assert blobs <= set(objects(fresh))
    assert fresh.verify().clean


def test_push_waits_for_a_deletion_of_its_blob_and_stores_it_anew(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection has looked for the last time when the push begins: the push must not trust what it sees."""
    files = make_files(tmp_path / "a")
    manifest = make_manifest(files)
    for file in manifest.files:
        registry._store.put_file(layout.blob(file.sha256), files[file.path], file.sha256, file.size)
    other = Registry.open(registry.url)
    delete = registry._store.delete
    pushed: list[threading.Thread] = []

    def push_first(key: str) -> None:
        if not pushed:
            pushed.append(threading.Thread(target=other.push, args=("clf", manifest, files)))
            pushed[0].start()
            time.sleep(0.5)
            assert pushed[0].is_alive(), "the push did not wait"
        delete(key)

    monkeypatch.setattr(registry._store, "delete", push_first)
    report = _gc(registry)
    pushed[0].join(timeout=60)
    assert len(report.deleted) == 2
    assert other.verify().clean
    assert other.resolve("clf").digest == manifest.digest()


def test_collections_race_pushes_that_reuse_old_blobs(folder_registry: Registry, tmp_path: Path) -> None:
    """Every push reuses blobs whose last user has just been lost; collections without grace or wait run all along."""
    registry = folder_registry
    stop = threading.Event()
    freed: list[int] = []

    def collecting() -> None:
        while not stop.is_set():
            try:
                freed.append(_gc(Registry.open(registry.url)).bytes_freed)
            except NotFoundError:
                continue

    def writing(writer: int) -> None:
        mine = Registry.open(registry.url)
        for number in range(8):
            revision = push(mine, tmp_path / str(writer), f"name-{writer}-{number}", seed=number % 3)
            assert Registry.open(registry.url, cache=tmp_path / f"c{writer}-{number}").local(revision).is_dir()
            if number % 2:
                remove(mine, f"revisions/name-{writer}-{number}/00000001.json")

    with ThreadPoolExecutor(4) as pool:
        collectors = [pool.submit(collecting) for _ in range(1)]
        writers = [pool.submit(writing, writer) for writer in range(3)]
        try:
            for task in writers:
                task.result(timeout=120)
        finally:
            stop.set()
        for task in collectors:
            task.result(timeout=60)
    assert sum(freed) > 0, "nothing was ever collected: the test shows nothing"
    report = registry.verify()
    assert report.clean, report
    assert report.revisions == 12


def test_collections_at_the_same_time_retire_together(registry: Registry, tmp_path: Path) -> None:
    for number in range(12):
        push(registry, tmp_path / "a", seed=number)
    together = threading.Barrier(4, timeout=60)

    def retire(_: int) -> None:
        together.wait()
        _gc(Registry.open(registry.url), retention=Retention(keep_last=1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(retire, range(4)))
    assert [revision.number for revision in Registry.open(registry.url).revisions("clf")] == [12]
    assert registry.verify().clean


def test_damaged_manifest_stops_a_collection(registry: Registry, five: list[Revision], orphan: str) -> None:
    flip(registry, layout.manifest(five[0].digest))
    with pytest.raises(PreconditionError, match="damaged"):
        _gc(registry)
    assert orphan in objects(registry)


def test_collection_that_died_holds_nobody_up_for_ever(registry: Registry, tmp_path: Path) -> None:
    files = make_files(tmp_path / "a")
    manifest = make_manifest(files)
    ended = (datetime.now(UTC) - timedelta(minutes=3)).isoformat()
    keys = [layout.blob(file.sha256) for file in manifest.files]
    overwrite(registry, layout.quarantine("dead", "deleting"), encode({"keys": keys, "expires": ended}))
    assert registry.push("clf", manifest, files).number == 1


@pytest.mark.parametrize("how", ["pull", "local"])
def test_revision_that_is_being_fetched_is_not_retired(
    registry: Registry, five: list[Revision], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    whole = registry._store.chunks
    collected: list[int] = []

    def chunks(key: str) -> Any:
        collected.append(len(_gc(Registry.open(registry.url), retention=Retention(keep_last=1)).deleted))
        return whole(key)

    monkeypatch.setattr(registry._store, "chunks", chunks)
    registry.pull(five[0], tmp_path / "out") if how == "pull" else registry.local(five[0])
    assert collected[0] > 0
    assert [revision.number for revision in Registry.open(registry.url).revisions("clf")] == [1, 5]
    assert leases.read_leases(registry._store) == []


def test_reader_who_may_not_write_reads_without_a_lease(
    registry: Registry, five: list[Revision], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(key: str, content: bytes, *, fleeting: bool = False) -> bool:
        raise PreconditionError(f"cannot write {key}", reason="NOT_PERMITTED")

    monkeypatch.setattr(registry._store, "put_if_absent", refuse)
    registry.pull(five[0], tmp_path / "out")
    assert registry.local(five[1]).is_dir()


def test_parts_of_writes_that_go_on_stay(folder_registry: Registry) -> None:
    root = Path(folder_registry.url)
    (root / "blobs").mkdir()
    young, old = root / "blobs" / "x#1", root / "blobs" / "x#2"
    for path in (young, old):
        path.write_bytes(b"half")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    assert [item.key for item in _gc(folder_registry).deleted] == ["blobs/x#2"]
    assert young.exists()
    assert not old.exists()


_SERVER = """
import sys, time
from loradeck_registry.registry import Registry
registry = Registry.open(sys.argv[1])
revision = registry.resolve("clf@1")
lease = registry.hold([revision.digest], "server-1", ttl=float(sys.argv[2]))
print(registry.local(revision), flush=True)
while True:
    time.sleep(0.05)
    lease.touch()
"""


def test_live_process_keeps_its_revision_and_a_killed_one_only_until_its_lease_ends(
    folder_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = folder_registry
    for seed in (1, 2):
        push(registry, tmp_path / "a", seed=seed, alias="prod")
    retire = {"retention": Retention(keep_last=1, keep_aliased=False)}
    monkeypatch.setattr(leases, "OVERLAP", timedelta(seconds=0))
    command = [sys.executable, "-c", _SERVER, registry.url, "6"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        try:
            for _ in range(10):
                assert _gc(registry, **retire).live_leases == 1
                assert Registry.open(registry.url).resolve("clf@1").number == 1
                time.sleep(1)
        finally:
            server.kill()
            server.wait()
    assert _gc(registry, **retire).live_leases == 1
    assert Registry.open(registry.url, cache=tmp_path / "new").local(registry.resolve("clf@1")).is_dir()
    end = time.monotonic() + 60
    while _gc(registry, **retire).live_leases:
        assert time.monotonic() < end, "a killed process keeps its revision"
        time.sleep(0.2)
    with pytest.raises(NotFoundError) as caught:
        Registry.open(registry.url).resolve("clf@1")
    assert caught.value.reason == "REVISION_RETIRED"
    assert not [key for key in objects(registry) if key.startswith("leases/")]


def test_lease_can_be_extended_and_used_by_many_threads(registry: Registry, five: list[Revision]) -> None:
    lease = registry.hold([five[0].digest], "server", ttl=60)

    def work(revision: Revision) -> None:
        lease.extend([revision.digest])
        lease.renew()
        lease.touch()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, five))
    assert lease.in_force()
    _gc(registry, retention=Retention(keep_last=1))
    assert [revision.number for revision in Registry.open(registry.url).revisions("clf")] == [1, 2, 3, 4, 5]
    lease.release()
    assert leases.read_leases(registry._store) == []
    _gc(registry, retention=Retention(keep_last=1))
    assert [revision.number for revision in Registry.open(registry.url).revisions("clf")] == [5]
