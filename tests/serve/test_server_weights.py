"""Weighted aliases: callers are shared out among revisions, and each stays with its own."""

import asyncio
import time

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from tests.serve.conftest import Running, Start
from tests.serve.deck import Deck
from tests.serve.errors import failure
from tests.serve.moves import let_go, revision_of
from tests.serve.waiting import until

CLASSIFY = inference.ClassifyRequest(adapter="clf", text="The bank opened a branch.")


def metadata(caller: str) -> tuple[tuple[str, str], ...]:
    """Who asks."""
    return (("x-loradeck-caller", caller),)


async def answered(running: Running, callers: list[str], reference: str = "clf") -> dict[str, int]:
    """The revision that answers each caller."""
    request = inference.ClassifyRequest(adapter=reference, text="x")
    replies = await asyncio.gather(*(running.inference.Classify(request, metadata=metadata(c)) for c in callers))
    return {caller: reply.provenance.revision for caller, reply in zip(callers, replies, strict=True)}


CALLERS = [f"user-{number}" for number in range(300)]


async def test_weighted_alias_shares_callers_and_each_stays_with_its_revision(start: Start, deck: Deck) -> None:
    deck.registry.move_alias("clf", "canary", {"1": 80, "2": 20})
    running = await start()
    first = await answered(running, CALLERS, "clf@canary")
    assert await answered(running, CALLERS, "clf@canary") == first
    assert 0.12 < sum(number == 2 for number in first.values()) / len(CALLERS) < 0.28
    # Other servers and the registry itself draw the same.
    expected = {c: deck.registry.resolve("clf@canary", caller=c).number for c in CALLERS[:20]}
    assert {c: first[c] for c in CALLERS[:20]} == expected


async def test_host_stands_for_callers_without_a_name(start: Start, deck: Deck) -> None:
    deck.registry.move_alias("clf", "canary", {"1": 50, "2": 50})
    running = await start()
    drawn = {await revision_of(running, "clf@canary") for _ in range(20)}
    assert drawn == {deck.registry.resolve("clf@canary", caller="ipv4:127.0.0.1").number}


async def test_first_use_of_a_weighted_alias_loads_all_of_its_revisions(start: Start, deck: Deck) -> None:
    deck.registry.move_alias("clf", "canary", {"1": 99, "2": 1})
    running = await start()
    await revision_of(running, "clf@canary")
    # None is left for its first caller to load:
    await until(lambda: len(running.engine.loaded) == 2)


async def test_alias_becomes_weighted_and_single_again_under_load(start: Start, deck: Deck) -> None:
    running = await start(engine={"step_seconds": 0.002}, host_adapters=3)
    digests = {number: deck.registry.resolve(f"clf@{number}").digest for number in (1, 2)}
    assert set((await answered(running, CALLERS[:20])).values()) == {1}
    stop = asyncio.Event()
    failures: list[Exception] = []
    seen: set[str] = set()

    async def ask(caller: str) -> None:
        while not stop.is_set():
            try:
                reply = await running.inference.Classify(CLASSIFY, metadata=metadata(caller))
                seen.add(reply.provenance.digest)
            except Exception as error:
                failures.append(error)

    asking = [asyncio.create_task(ask(caller)) for caller in CALLERS[:16]]
    deck.registry.move_alias("clf", "prod", {"1": 50, "2": 50})
    drawn = {c: deck.registry.resolve("clf", caller=c).number for c in CALLERS[:16]}
    assert set(drawn.values()) == {1, 2}

    async def found() -> dict[str, int]:
        return await answered(running, CALLERS[:16])

    async def shared() -> bool:
        return await found() == drawn

    async def moved_back() -> bool:
        return set((await found()).values()) == {2}

    await until(shared)
    assert set(digests.values()) <= running.engine.loaded.keys()
    deck.registry.move_alias("clf", "prod", "2")
    await until(moved_back)
    stop.set()
    await asyncio.gather(*asking)
    assert not failures
    assert seen == set(digests.values())
    await let_go(running, digests[1])
    assert running.engine.loads.count(digests[1]) == 1, "a request on its way had to load the old revision again"


async def test_pinned_weighted_alias_pins_all_its_revisions(start: Start, deck: Deck) -> None:
    deck.registry.move_alias("clf", "prod", {"1": 90, "2": 10})
    running = await start(pins=["clf@prod"])

    async def pinned(number: int) -> bool:
        request = adapters.GetAdapterRequest(adapter=f"clf@{number}")
        return bool((await running.admin.GetAdapter(request)).adapter.pinned)

    assert await pinned(1)
    assert await pinned(2)
    deck.registry.move_alias("clf", "prod", "2")
    begin = time.monotonic()
    while await pinned(1):
        assert time.monotonic() - begin < 20, "the pin of what the alias no longer means did not end"
        await asyncio.sleep(0.01)
    assert await pinned(2)


async def test_move_to_a_weighted_alias_asks_for_a_revision(start: Start, deck: Deck) -> None:
    deck.registry.move_alias("clf", "canary", {"1": 50, "2": 50})
    running = await start()
    call = running.admin.MoveAlias(adapters.MoveAliasRequest(name="clf", alias="prod", target="canary"))
    failed = await failure(call)
    assert (failed.code, failed.field) == ("INVALID_ARGUMENT", "target")


async def test_watch_shows_the_shares_of_a_weighted_alias(start: Start, deck: Deck) -> None:
    running = await start()
    assert await revision_of(running) == 1
    watch = running.admin.WatchAdapters(adapters.WatchAdaptersRequest())
    messages = aiter(watch)
    await anext(messages)

    async def next_flip() -> tuple[int, int, dict[int, float]]:
        async with asyncio.timeout(10):
            while (message := await anext(messages)).WhichOneof("event") != "alias_flip":
                pass
        flip = message.alias_flip
        return flip.previous_revision, flip.revision, {s.revision: round(s.share, 6) for s in flip.shares}

    deck.registry.move_alias("clf", "prod", {"1": 90, "2": 10})
    assert await next_flip() == (1, 1, {1: 0.9, 2: 0.1})
    deck.registry.move_alias("clf", "prod", {"1": 1, "2": 3})
    assert await next_flip() == (1, 2, {1: 0.25, 2: 0.75})
    deck.registry.move_alias("clf", "prod", "2")
    assert await next_flip() == (2, 2, {})
    watch.cancel()
