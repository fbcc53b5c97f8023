"""Hot swap: aliases move while requests run, and nobody is answered by the wrong revision."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_registry.errors import NotFoundError
from loradeck_registry.registry import Registry, Revision
from loradeck_serve.catalog.swapper import LINGER_SECONDS
from loradeck_serve.supervisor import EngineSupervisor
from tests.serve.conftest import Start
from tests.serve.deck import Deck
from tests.serve.errors import failure
from tests.serve.moves import let_go, means, revision_of
from tests.serve.waiting import until

CLASSIFY = inference.ClassifyRequest(adapter="clf", text="The bank opened a branch.")
LONG = inference.AnswerLongRequest(adapter="long@prod", question="q", context="c")


async def test_move_by_another_writer_is_followed(start: Start, deck: Deck) -> None:
    running = await start()
    assert await revision_of(running) == 1
    deck.registry.move_alias("clf", "prod", "2")
    await means(running, 2)
    deck.registry.rollback("clf", "prod")
    await means(running, 1)


async def test_new_revision_reaches_latest_and_bare_name_without_prod(start: Start, deck: Deck) -> None:
    running = await start()
    request = inference.AnswerShortRequest(adapter="short", question="q", context="c")
    assert (await running.inference.AnswerShort(request)).provenance.revision == 1
    deck.publish("short", "short_qa", 40)

    async def noticed() -> bool:
        return bool((await running.inference.AnswerShort(request)).provenance.revision == 2)

    await until(noticed)


async def test_running_request_finishes_on_the_old_revision(start: Start, deck: Deck) -> None:
    running = await start(engine={"step_seconds": 0.05})
    old = deck.registry.resolve("long@1").digest
    call = aiter(running.inference.AnswerLong(LONG))
    assert (await anext(call)).chunk.text
    deck.registry.move_alias("long", "prod", "2")
    new = deck.registry.resolve("long@2").digest
    await until(lambda: new in running.engine.loaded)
    final = [m async for m in call][-1].final
    assert (final.provenance.digest, final.provenance.revision) == (old, 1)
    await let_go(running, old)
    assert new in running.engine.loaded


async def test_move_by_rpc_loads_first_and_flips_at_once(start: Start, deck: Deck) -> None:
    running = await start()
    assert await revision_of(running) == 1
    reply = await running.admin.MoveAlias(
        adapters.MoveAliasRequest(name="clf", alias="prod", target="2", expected_revision=1, reason="better"),
        metadata=(("x-loradeck-caller", "tester@here"),),
    )
    assert (reply.previous_revision, reply.adapter.revision) == (1, 2)
    assert reply.adapter.state == adapters.ADAPTER_STATE_LOADED
    assert await revision_of(running) == 2
    entry = deck.registry.history("clf", "prod")[0]
    assert (entry.revision, entry.who, entry.why) == (2, "tester@here", "better")


async def test_move_by_rpc_makes_a_new_alias(start: Start) -> None:
    running = await start()
    reply = await running.admin.MoveAlias(
        adapters.MoveAliasRequest(name="clf", alias="canary", target="latest", expected_revision=0)
    )
    assert (reply.previous_revision, reply.adapter.revision) == (0, 2)
    assert await revision_of(running, "clf@canary") == 2
    assert await revision_of(running) == 1


async def test_lost_race_is_aborted_and_changes_nothing(start: Start, deck: Deck) -> None:
    running = await start()
    call = running.admin.MoveAlias(adapters.MoveAliasRequest(name="clf", alias="prod", target="2", expected_revision=2))
    failed = await failure(call)
    assert (failed.code, failed.reason) == ("ABORTED", "ALIAS_MOVED")
    assert deck.registry.resolve("clf@prod").number == 1
    assert await revision_of(running) == 1


async def test_failed_load_keeps_old_revision_serving(start: Start, deck: Deck) -> None:
    running = await start()
    assert await revision_of(running) == 1
    running.engine.refuse.add(deck.registry.resolve("clf@2").digest)
    call = running.admin.MoveAlias(adapters.MoveAliasRequest(name="clf", alias="prod", target="2"))
    failed = await failure(call)
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "ENGINE_REFUSED")
    assert deck.registry.resolve("clf@prod").number == 1, "the registry was written before the load"

    watch = running.admin.WatchAdapters(adapters.WatchAdaptersRequest(names=["clf"]))
    seen: list[Any] = []
    reading = asyncio.create_task(_collect(watch, seen))
    deck.registry.move_alias("clf", "prod", "2")
    await until(lambda: any(m.adapter.revision == 2 and m.adapter.error_reason == "ENGINE_REFUSED" for m in seen))
    failures = running.server.metrics.flip_failures.labels("clf", "ENGINE_REFUSED")._value
    await until(lambda: failures.get() >= 1)
    assert await revision_of(running) == 1
    watch.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_move_that_comes_while_another_one_fails_is_followed_at_once(start: Start, deck: Deck) -> None:
    good = deck.publish("clf", "classification", 71)
    running = await start()
    assert await revision_of(running) == 1
    running.engine.refuse.add(deck.registry.resolve("clf@2").digest)
    running.engine.load_gate.clear()
    begun = len(running.engine.loading)
    deck.registry.move_alias("clf", "prod", "2")
    await until(lambda: len(running.engine.loading) > begun)
    # The first load is on its way; when it fails, it is not what is meant any more.
    deck.registry.move_alias("clf", "prod", str(good.number))
    running.engine.load_gate.set()
    begin = time.monotonic()
    await means(running, good.number)
    assert time.monotonic() - begin < 10, "the second move waited for the first one's next attempt"


async def test_moves_are_followed_while_downloads_take_long(
    start: Start, deck: Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start(host_adapters=20)
    assert await revision_of(running) == 1
    assert await revision_of(running, "clf@2") == 2
    slow = {deck.publish(f"slow-{number}", "classification", 100 + number).digest for number in range(6)}
    ended = threading.Event()
    local = Registry.local

    def wait(registry: Registry, revision: Revision) -> Path:
        if revision.digest in slow:
            ended.wait(30)
        return local(registry, revision)

    monkeypatch.setattr(Registry, "local", wait)
    asked = [asyncio.create_task(revision_of(running, f"slow-{number}")) for number in range(6)]
    try:
        await asyncio.sleep(0.3)
        deck.registry.move_alias("clf", "prod", "2")
        begin = time.monotonic()
        await means(running, 2)
        assert time.monotonic() - begin < 10
    finally:
        ended.set()
    assert await asyncio.gather(*asked) == [1] * 6


async def test_watch_shows_present_state_then_loads_and_flips(start: Start, deck: Deck) -> None:
    running = await start()
    assert await revision_of(running) == 1
    watch = running.admin.WatchAdapters(adapters.WatchAdaptersRequest())
    messages = aiter(watch)
    first = await anext(messages)
    assert (first.adapter.name, first.adapter.revision, first.adapter.aliases) == ("clf", 1, ["prod"])
    seen: list[Any] = []
    reading = asyncio.create_task(_collect(messages, seen))
    deck.registry.move_alias("clf", "prod", "2")
    await means(running, 2)
    await asyncio.sleep(LINGER_SECONDS + 0.3)
    flips = [m.alias_flip for m in seen if m.WhichOneof("event") == "alias_flip"]
    assert [(f.alias, f.previous_revision, f.revision) for f in flips] == [("prod", 1, 2)]
    states = [(m.adapter.revision, m.adapter.state) for m in seen if m.WhichOneof("event") == "adapter"]
    assert states.index((2, adapters.ADAPTER_STATE_LOADED)) < states.index((1, adapters.ADAPTER_STATE_CACHED))
    watch.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_flips_under_load_fail_nobody_and_name_who_answered(start: Start, deck: Deck) -> None:
    running = await start(engine={"step_seconds": 0.002})
    digests = {deck.registry.resolve(f"clf@{n}").digest: n for n in (1, 2)}
    best = {d: int(d[7:11], 16) % 3 for d in digests}
    labels = ("Economy", "Health", "Education")
    answered: list[int] = []
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            reply = await running.inference.Classify(CLASSIFY)
            # The fake engine answers by the digest it was really asked with.
            assert reply.label == labels[best[reply.provenance.digest]]
            assert digests[reply.provenance.digest] == reply.provenance.revision
            answered.append(reply.provenance.revision)

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    for flip in range(10):
        revision = 2 if flip % 2 == 0 else 1
        deck.registry.move_alias("clf", "prod", str(revision))
        await means(running, revision)
    stop.set()
    await asyncio.gather(*asking)
    assert len(answered) > 100
    assert set(answered) == {1, 2}


async def test_state_of_a_revision_follows_it_from_the_registry_to_the_engine(start: Start) -> None:
    running = await start()

    async def state() -> int:
        reply = await running.admin.GetAdapter(adapters.GetAdapterRequest(adapter="clf@2"))
        assert isinstance(reply.adapter.state, int)
        return reply.adapter.state

    assert await state() == adapters.ADAPTER_STATE_UNSPECIFIED
    await running.admin.LoadAdapter(adapters.LoadAdapterRequest(adapter="clf@2"))
    assert await state() == adapters.ADAPTER_STATE_LOADED
    await running.admin.UnloadAdapter(adapters.UnloadAdapterRequest(adapter="clf@2"))
    assert await state() == adapters.ADAPTER_STATE_CACHED


async def test_pinned_alias_stays_pinned_across_its_moves(start: Start, deck: Deck) -> None:
    running = await start(pins=["clf@prod"])
    deck.registry.move_alias("clf", "prod", "2")
    await means(running, 2)
    reply = await running.admin.GetAdapter(adapters.GetAdapterRequest(adapter="clf@2"))
    assert reply.adapter.pinned
    assert not (await running.admin.GetAdapter(adapters.GetAdapterRequest(adapter="clf@1"))).adapter.pinned


async def test_pin_that_is_not_there_ends_the_start_before_the_engine_s(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def started(self: EngineSupervisor) -> None:
        raise AssertionError("the engine was started")

    monkeypatch.setattr(EngineSupervisor, "start", started)
    with pytest.raises(NotFoundError, match="nosuch"):
        await start(pins=["nosuch@prod"])


async def _collect(watch: Any, seen: list[Any]) -> None:
    async for message in watch:
        seen.append(message)
