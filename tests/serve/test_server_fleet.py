"""Fleets: several servers on one registry move an alias together, or not at all."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import loradeck.inference.v1 as inference
from loradeck_registry.errors import ConflictError, PreconditionError
from loradeck_registry.fleet import records
from loradeck_registry.fleet.moving import Together
from loradeck_serve.fleet.member import FleetMember
from tests.serve.conftest import Running, Start
from tests.serve.deck import Deck
from tests.serve.waiting import until
from tests.support.tiny import make_tiny_base


async def revision_of(running: Running, reference: str = "clf") -> int:
    """The revision that answers."""
    reply = await running.inference.Classify(inference.ClassifyRequest(adapter=reference, text="x"))
    return int(reply.provenance.revision)


async def move(deck: Deck, target: str = "2", alias: str = "prod", **options: Any) -> Together:
    """Move clf's alias on all servers together."""
    return await asyncio.to_thread(deck.registry.move_together, "clf", alias, target, **{"seconds": 20, **options})


def states(together: Together) -> list[str]:
    """How each server stands."""
    return sorted(standing.state for standing in together.servers)


async def test_all_servers_load_first_and_then_all_flip(start: Start, deck: Deck) -> None:
    servers = [await start(heartbeat_seconds=0.5) for _ in range(2)]
    assert [await revision_of(server) for server in servers] == [1, 1]
    digest = deck.registry.resolve("clf@2").digest
    seen: list[tuple[str, ...]] = []
    together = await move(deck, progress=lambda now: seen.append(tuple(s.state for s in now)), why="better")
    assert together.entry is not None
    assert (together.previous, together.entry.revision, together.entry.why) == (1, 2, "better")
    assert states(together) == ["flipped", "flipped"]
    # Flipped means flipped: no server answers with the old revision after the command has returned.
    assert [await revision_of(server) for server in servers] == [2, 2]
    assert all(digest in server.engine.loaded for server in servers)
    assert seen, "nobody could see how it went"
    assert not deck.registry.open_moves(), "records of a finished move were left"


async def test_one_refusal_moves_nobody_and_says_why(start: Start, deck: Deck) -> None:
    first, second = [await start(heartbeat_seconds=0.5) for _ in range(2)]
    assert [await revision_of(first), await revision_of(second)] == [1, 1]
    second.engine.refuse.add(deck.registry.resolve("clf@2").digest)
    together = await move(deck)
    assert together.entry is None
    assert states(together) == ["ready", "refused"]
    assert [(s.reason, "refused by the test" in s.message) for s in together.blocking] == [("ENGINE_REFUSED", True)]
    assert deck.registry.resolve("clf@prod").number == 1
    assert [await revision_of(first), await revision_of(second)] == [1, 1]
    # The server that was ready need not keep the revision any more.
    entry = first.server._residency.find(deck.registry.resolve("clf@2").digest)
    assert entry is not None
    begin = time.monotonic()
    while entry.holds:
        assert time.monotonic() - begin < 30, "the revision is still held"
        await asyncio.sleep(0.05)
    # And the next move is not in the way of the failed one.
    second.engine.refuse.clear()
    assert states(await move(deck)) == ["flipped", "flipped"]


async def test_server_that_comes_while_others_prepare_is_asked_too(start: Start, deck: Deck) -> None:
    first = await start(heartbeat_seconds=0.5)
    first.engine.load_gate.clear()
    moving = asyncio.create_task(move(deck))
    await until(lambda: bool(first.engine.loading))
    second = await start(heartbeat_seconds=0.5)
    first.engine.load_gate.set()
    together = await moving
    assert states(together) == ["flipped", "flipped"]
    assert [await revision_of(first), await revision_of(second)] == [2, 2]


async def test_server_that_comes_later_serves_what_was_moved_to(start: Start, deck: Deck) -> None:
    await start(heartbeat_seconds=0.5)
    assert states(await move(deck)) == ["flipped"]
    assert await revision_of(await start(heartbeat_seconds=0.5)) == 2


async def test_dead_server_blocks_no_longer_than_its_membership(start: Start, deck: Deck) -> None:
    server = await start(heartbeat_seconds=0.5)
    deck.registry.membership("killed", "base", ttl=1.0).join()
    begin = time.monotonic()
    together = await move(deck)
    assert time.monotonic() - begin < 15
    assert states(together) == ["flipped", "gone"]
    assert await revision_of(server) == 2


async def test_server_that_lives_and_does_not_answer_blocks_until_the_time_is_over(start: Start, deck: Deck) -> None:
    server = await start(heartbeat_seconds=0.5)
    silent = deck.registry.membership("silent", "base", ttl=1.0)
    silent.join()
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.2):
            silent.renew()

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        together = await move(deck, seconds=2.5)
    finally:
        stop.set()
        thread.join()
    assert together.entry is None
    assert states(together) == ["ready", "silent"]
    assert await revision_of(server) == 1


async def test_stopped_server_is_a_member_no_more(start: Start, deck: Deck) -> None:
    running = await start()
    assert [member.id for member in deck.registry.members()] == [running.server._fleet.id]  # type: ignore[union-attr]
    running.server.stop()
    await asyncio.wait_for(running.task, 20)
    assert not deck.registry.members()


async def test_renewal_behind_the_leaving_makes_no_member_again(deck: Deck, monkeypatch: pytest.MonkeyPatch) -> None:
    member = FleetMember(deck.registry, "base", 0.01)
    leave = member._membership.leave

    def slow() -> None:
        time.sleep(0.3)
        leave()

    monkeypatch.setattr(member._membership, "leave", slow)
    await member.join()
    renewing = asyncio.create_task(member.run())
    await asyncio.sleep(0.05)
    await member.leave()
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    member._thread.shutdown(wait=True)
    assert not deck.registry.members()


async def test_conflict_is_said_before_any_server_loads(start: Start, deck: Deck) -> None:
    running = await start(heartbeat_seconds=0.5)
    with pytest.raises(ConflictError) as raised:
        await move(deck, expect=7)
    assert raised.value.reason == "ALIAS_MOVED"
    assert not running.engine.loads


async def test_alias_that_somebody_moves_meanwhile_is_a_conflict_and_the_servers_let_go(
    start: Start, deck: Deck
) -> None:
    running = await start(heartbeat_seconds=0.5)
    running.engine.load_gate.clear()
    moving = asyncio.create_task(move(deck))
    await until(lambda: bool(running.engine.loading))
    deck.registry.move_alias("clf", "prod", "2", why="quicker")
    running.engine.load_gate.set()
    with pytest.raises(ConflictError):
        await moving
    assert deck.registry.history("clf", "prod")[0].why == "quicker"
    for identifier in deck.registry.open_moves():
        assert deck.registry.outcome(identifier) is False


async def test_gate_refuses_before_any_server_loads(start: Start, deck: Deck) -> None:
    running = await start(heartbeat_seconds=0.5)
    deck.registry.protect("clf", "prod", ["accuracy >= 0.9"])
    with pytest.raises(PreconditionError) as raised:
        await move(deck)
    assert raised.value.reason == "GATE_FAILED"
    assert not running.engine.loads


async def test_server_of_another_base_has_no_say_unless_it_serves_the_name(
    start: Start, deck: Deck, tmp_path: Path
) -> None:
    other = make_tiny_base(tmp_path / "other", seed=9)
    ours = await start(heartbeat_seconds=0.5)
    theirs = await start(heartbeat_seconds=0.5, base=f"dir:{other}")
    assert states(await move(deck)) == ["elsewhere", "flipped"]
    assert await revision_of(ours) == 2
    # Now it is asked for the adapter, and cannot serve it; from here on it follows the name.
    await theirs.server._catalog.meaning("clf@prod")
    together = await move(deck, "1")
    assert together.entry is None
    assert [s.reason for s in together.blocking] == ["BASE_MISMATCH"]


async def test_server_of_the_base_alone_has_no_say(start: Start, deck: Deck) -> None:
    await start(heartbeat_seconds=0.5, slots=0, host_adapters=0)
    together = await move(deck)
    assert states(together) == ["elsewhere"]
    assert deck.registry.resolve("clf@prod").number == 2


async def test_move_that_nobody_finishes_is_let_go_in_time(
    start: Start, deck: Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loradeck_serve.fleet.participant._PATIENCE", 0.5)
    running = await start(heartbeat_seconds=0.5)
    revision = deck.registry.resolve("clf@2")
    store = deck.registry._store
    from loradeck_registry.fleet.moving import make_intent

    intent = make_intent("clf", "prod", 2, revision.digest, "me", 1.0)
    records.announce(store, intent)
    votes: dict[str, records.Vote] = {}
    begin = time.monotonic()
    while not votes:
        assert time.monotonic() - begin < 30
        records.read_votes(store, intent.id, votes)
        await asyncio.sleep(0.05)
    entry = running.server._residency.find(revision.digest)
    assert entry is not None
    assert entry.holds == 1, "a promised revision is not held"
    while entry.holds:
        assert time.monotonic() - begin < 30, "a promise without an end"
        await asyncio.sleep(0.05)
    assert await revision_of(running) == 1
