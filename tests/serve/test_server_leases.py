"""Leases: no garbage collection removes from the registry what a live server uses."""

import asyncio
import shutil
import time
from datetime import timedelta

import pytest

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_registry.cache.eviction import evict
from loradeck_registry.collection.collecting import CollectReport
from loradeck_registry.collection.leases import read_leases
from loradeck_registry.collection.retention import Retention
from loradeck_registry.errors import NotFoundError
from loradeck_registry.registry import Registry
from loradeck_serve.residency.hold import RegistryHold
from tests.serve.conftest import Running, Start
from tests.serve.deck import Deck
from tests.serve.waiting import until


async def collect(deck: Deck) -> CollectReport:
    """A collection by another process: everything but the newest revision of each name may go."""
    registry = Registry.open(deck.url, cache=deck.folder / "collector")
    retention = Retention(keep_last=1, keep_aliased=False)
    return await asyncio.to_thread(registry.collect, delete=True, retention=retention, grace=timedelta(0), wait=0.0)


def gone(deck: Deck, reference: str) -> bool:
    """Whether the registry has let a revision go."""
    try:
        Registry.open(deck.url, cache=deck.folder / "reader").resolve(reference)
    except NotFoundError:
        return True
    return False


async def ask(running: Running, reference: str) -> int:
    """The revision that answers."""
    reply = await running.inference.Classify(inference.ClassifyRequest(adapter=reference, text="x"))
    return int(reply.provenance.revision)


async def released(deck: Deck) -> None:
    """Wait until no lease is left."""
    await until(lambda: not read_leases(deck.registry._store))


async def test_collection_spares_what_a_server_has_loaded_until_it_lets_go(start: Start, deck: Deck) -> None:
    deck.registry.move_alias("clf", "prod", "2")
    running = await start()
    assert await ask(running, "clf@1") == 1
    report = await collect(deck)
    assert report.live_leases == 1
    assert not gone(deck, "clf@1"), "a revision was removed under a server that uses it"
    await running.admin.UnloadAdapter(adapters.UnloadAdapterRequest(adapter="clf@1"))
    await released(deck)
    await collect(deck)
    assert gone(deck, "clf@1"), "what nobody uses any more was kept"


async def test_server_that_stops_leaves_no_lease(start: Start, deck: Deck) -> None:
    running = await start()
    await ask(running, "clf")
    assert [held.holder.startswith("server-") for held in read_leases(deck.registry._store)] == [True]
    running.server.stop()
    await asyncio.wait_for(running.task, 20)
    await released(deck)


async def test_refused_adapter_keeps_no_lease(start: Start, deck: Deck) -> None:
    running = await start()
    running.engine.refuse.add(deck.registry.resolve("clf@2").digest)
    try:
        await ask(running, "clf@2")
    except Exception:
        await released(deck)
    else:
        raise AssertionError("the engine refused nothing")


async def test_renewal_keeps_what_is_needed_and_drops_the_rest(deck: Deck) -> None:
    hold = RegistryHold(deck.registry)
    first, second = (deck.registry.resolve(f"clf@{number}").digest for number in (1, 2))
    await hold.take(first)
    await hold.take(second)
    before = {held.key for held in read_leases(deck.registry._store)}
    running = asyncio.create_task(hold.run(lambda: {second}, seconds=0.05))

    def renewed_and_dropped() -> bool:
        now = read_leases(deck.registry._store)
        return {held.manifests for held in now} == {(second,)} and not {held.key for held in now} & before

    await until(renewed_and_dropped)
    running.cancel()
    await hold.close()
    assert not read_leases(deck.registry._store)


async def test_registry_that_cannot_be_written_does_not_keep_an_adapter_from_being_served(
    start: Start, deck: Deck, caplog: pytest.LogCaptureFixture
) -> None:
    running = await start()
    await ask(running, "clf")
    await running.admin.UnloadAdapter(adapters.UnloadAdapterRequest(adapter="clf"))
    await released(deck)
    leases = deck.folder / "registry" / "leases"
    shutil.rmtree(leases, ignore_errors=True)
    leases.write_text("in the way")
    assert await ask(running, "clf") == 1
    await until(lambda: any("no lease in the registry" in record.message for record in caplog.records))


async def test_files_stay_in_the_cache_while_loaded_and_may_go_afterwards(start: Start, deck: Deck) -> None:
    running = await start()
    revision = deck.registry.resolve("clf@1")
    folder = deck.cache / "revisions" / revision.digest.removeprefix("sha256:")
    assert await ask(running, "clf@1") == 1
    await asyncio.to_thread(evict, deck.cache, 0)
    assert folder.is_dir(), "the files of a loaded adapter were evicted"
    await running.admin.UnloadAdapter(adapters.UnloadAdapterRequest(adapter="clf@1"))
    begin = time.monotonic()
    while folder.is_dir():
        assert time.monotonic() - begin < 30, "the cache still takes the files for used"
        await asyncio.to_thread(evict, deck.cache, 0)
    assert await ask(running, "clf@1") == 1
