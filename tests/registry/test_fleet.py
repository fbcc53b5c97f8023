"""Members of a fleet and moves made together, on every kind of store, with servers that only talk."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loradeck_registry import layout
from loradeck_registry.errors import ConflictError, InvalidError, NotFoundError
from loradeck_registry.fleet import members, moving, records
from loradeck_registry.fleet.records import Answer, Vote
from loradeck_registry.registry import Registry
from tests.registry.support import push


@pytest.fixture
def fleet(registry: Registry, tmp_path: Path) -> Registry:
    """A registry with two revisions, `prod` on the first."""
    push(registry, tmp_path / "one", seed=1, alias="prod")
    push(registry, tmp_path / "two", seed=2)
    return registry


@contextmanager
def talking(registry: Registry, name: str, answer: Answer = "ready", flips: bool = True) -> Iterator[list[str]]:
    """A server that answers every move it hears of; gives what it has heard."""
    membership = registry.membership(name, "base", ttl=30.0)
    membership.join()
    heard: list[str] = []
    stop = threading.Event()

    def run() -> None:
        since = datetime.now(UTC)
        while not stop.wait(0.05):
            membership.renew()
            for change in registry.changes(since):
                if change.move is None or change.move in heard:
                    continue
                heard.append(change.move)
                intent = registry.intent(change.move)
                assert intent is not None
                reason = "NO_HOST_ROOM" if answer == "refused" else ""
                registry.vote(change.move, Vote(membership.id, answer, 0.1, reason, "why"))
                while (moved := registry.outcome(change.move)) is None and not stop.wait(0.05):
                    membership.renew()
                if moved and answer == "ready" and flips:
                    registry.say_flipped(change.move, membership.id)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()
        membership.leave()


def test_member_is_seen_until_it_leaves_and_renewals_do_not_pile_up(registry: Registry) -> None:
    store = registry._store
    first = registry.membership("host one/7", "pocket@1")
    second = registry.membership("host one/7", "pocket@1")
    assert first.id != second.id
    first.join()
    second.join()
    found = registry.members()
    assert {member.id for member in found} == {first.id, second.id}
    assert {member.base for member in found} == {"pocket@1"}
    before = members.beats(store)[first.id]
    for _ in range(5):
        first.renew()
    assert members.beats(store)[first.id] > before
    assert len(store.entries(layout.SERVERS)) <= 4
    first.leave()
    first.leave()
    assert [member.id for member in registry.members()] == [second.id]
    second.leave()
    assert not store.entries(layout.SERVERS)


def test_what_a_killed_server_left_is_removed_by_the_next_that_comes(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = registry.membership("killed", "base")
    killed.join()
    # Two hours pass.
    monkeypatch.setattr(members.time, "time_ns", lambda real=time.time_ns: real() + 7_200 * 10**9)
    registry.membership("next", "base").join()
    assert [member.id.startswith("next") for member in registry.members()] == [True]


def test_collection_removes_what_servers_without_the_right_to_delete_have_left(
    folder_registry: Registry, tmp_path: Path
) -> None:
    push(folder_registry, tmp_path / "one")
    for name in ("old", "new"):
        folder_registry.membership(name, "base").join()
    two_days_ago = time.time() - 48 * 3600
    for path in (tmp_path / "registry" / "servers").glob("old*"):
        os.utime(path, (two_days_ago, two_days_ago))
    folder_registry.collect(delete=True, wait=0.0)
    left = folder_registry._store.entries(layout.SERVERS)
    assert [name.startswith("new") for name in left] == [True]


def test_all_ready_moves_and_leaves_nothing_behind(fleet: Registry) -> None:
    with talking(fleet, "a"), talking(fleet, "b"):
        done = fleet.move_together("clf", "prod", "2", seconds=20, why="better")
    assert done.entry is not None
    assert [standing.state for standing in done.servers] == ["flipped", "flipped"]
    assert fleet.resolve("clf@prod").number == 2
    assert fleet.history("clf", "prod")[0].why == "better"
    assert not fleet._store.entries(layout.MOVES)


@pytest.mark.parametrize("answer", ["refused", "elsewhere"])
def test_one_refusal_stops_all_and_another_base_none(fleet: Registry, answer: Answer) -> None:
    with talking(fleet, "a"), talking(fleet, "b", answer):
        done = fleet.move_together("clf", "prod", "2", seconds=20)
    states = {standing.server[0]: standing.state for standing in done.servers}
    if answer == "refused":
        assert done.entry is None
        assert states == {"a": "ready", "b": "refused"}
        assert [(standing.reason, standing.message) for standing in done.blocking] == [("NO_HOST_ROOM", "why")]
        assert fleet.resolve("clf@prod").number == 1
    else:
        assert states == {"a": "flipped", "b": "elsewhere"}
        assert fleet.resolve("clf@prod").number == 2


def test_without_servers_the_alias_moves_at_once(fleet: Registry) -> None:
    done = fleet.move_together("clf", "prod", "2", seconds=20)
    assert (done.servers, fleet.resolve("clf@prod").number) == ((), 2)


def test_server_that_dies_after_the_move_does_not_hold_up_the_command(fleet: Registry) -> None:
    with ExitStack() as stack:
        stack.enter_context(talking(fleet, "a"))
        dying = ExitStack()
        stack.enter_context(dying)
        dying.enter_context(talking(fleet, "b", flips=False))
        timer = threading.Timer(1.5, dying.close)
        timer.start()
        begin = time.monotonic()
        done = fleet.move_together("clf", "prod", "2", seconds=60)
        timer.join()
    assert time.monotonic() - begin < 40
    assert done.entry is not None
    assert sorted(standing.state for standing in done.servers) == ["flipped", "gone"]


def test_two_who_move_the_same_alias_at_once_do_not_both_succeed(fleet: Registry) -> None:
    ended: list[object] = []

    def move(target: str) -> None:
        try:
            ended.append(fleet.move_together("clf", "canary", target, seconds=60).entry)
        except ConflictError as error:
            ended.append(error.reason)

    with talking(fleet, "a"):
        threads = [threading.Thread(target=move, args=(target,)) for target in ("1", "2")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(fleet.history("clf", "canary")) == len([entry for entry in ended if entry != "ALIAS_MOVED"])
    assert ended.count("ALIAS_MOVED") <= 1


def test_interrupted_move_tells_the_servers_that_it_is_over(
    folder_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(folder_registry, tmp_path / "one", alias="prod")
    push(folder_registry, tmp_path / "two", seed=2)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with talking(folder_registry, "a") as heard:
        with pytest.raises(KeyboardInterrupt):
            folder_registry.move_together("clf", "prod", "2", seconds=10, progress=interrupt)
        for move in heard:
            assert folder_registry.outcome(move) is False
    assert folder_registry.resolve("clf@prod").number == 1
    assert all(records.outcome(folder_registry._store, move) is False for move in folder_registry.open_moves())


@pytest.mark.parametrize("seconds", [0, -1, 3601])
def test_time_without_sense_is_refused(folder_registry: Registry, seconds: float) -> None:
    with pytest.raises(InvalidError):
        folder_registry.move_together("clf", "prod", "2", seconds=seconds)


def test_unknown_revision_is_said_before_anybody_is_asked(fleet: Registry) -> None:
    with talking(fleet, "a") as heard, pytest.raises(NotFoundError):
        fleet.move_together("clf", "prod", "9", seconds=5)
    assert not heard


def test_time_in_which_nobody_looked_makes_nobody_gone(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(moving.time, "monotonic", lambda: clock[0])
    membership = registry.membership("one", "base", ttl=3.0)
    membership.join()
    watch = moving._Watch(registry._store)

    def gone_after(seconds: float) -> set[str]:
        clock[0] += seconds
        watch.look()
        return watch.gone

    assert not gone_after(1)
    assert not gone_after(60), "the looker was held up, not the member"
    membership.renew()
    assert not gone_after(1)
    assert [bool(gone_after(1)) for _ in range(4)] == [False, False, False, True]
    membership.renew()
    assert not gone_after(1), "who comes back counts again"
