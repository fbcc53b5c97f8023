"""Who gets what on the real engine: shares of a weighted alias, and turns beside an adapter that floods the server."""

import asyncio
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from loradeck_client import AsyncClient, Client, Sampling
from tests.e2e.conftest import Served

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONTEXT = "The bank opened a branch and the city built a network."
GREEDY = Sampling(temperature=0, max_tokens=8)
CALLERS = [f"user-{number}" for number in range(60)]
Reply = tuple[str, int, str, str]
"""Caller, revision, digest and text."""


def ask(client: Client, caller: str, reference: str) -> Reply:
    """One greedy answer."""
    final = client.answer_long("What?", context=CONTEXT, adapter=reference, sampling=GREEDY).result()
    return caller, final.provenance.revision, final.provenance.digest, final.text


@contextmanager
def clients(server: Served, callers: list[str]) -> Iterator[dict[str, Client]]:
    """A client for each caller."""
    with ExitStack() as stack:
        yield {c: stack.enter_context(Client(server.inference, timeout=60, caller=c)) for c in callers}


def test_weighted_alias_gives_each_caller_one_revision_by_its_share(server: Served) -> None:
    registry = server.deck.registry
    registry.move_alias("long", "split", {"1": 70, "2": 30})
    entry = registry.aliases("long")["split"]
    with clients(server, CALLERS) as found:
        golden = {number: ask(found[CALLERS[0]], "", f"long@{number}")[3] for number in (1, 2)}
        assert golden[1] != golden[2]
        replies = [ask(client, caller, "long@split") for _ in range(2) for caller, client in found.items()]
    drawn: dict[str, set[int]] = {}
    for caller, number, digest, text in replies:
        drawn.setdefault(caller, set()).add(number)
        assert text == golden[number]
        assert digest == registry.resolve(f"long@{number}").digest
    assert all(numbers == {entry.draw(caller).revision} for caller, numbers in drawn.items())
    share = Counter(number for (number,) in drawn.values())[2] / len(CALLERS)
    assert 0.15 < share < 0.45


def test_alias_moves_between_weighted_and_single_under_load_without_a_failure(server: Served) -> None:
    registry = server.deck.registry
    registry.move_alias("long", "moving", "1")
    callers = CALLERS[:8]
    replies: list[Reply] = []
    failures: list[Exception] = []
    stop = threading.Event()
    with clients(server, callers) as found:
        golden = {number: ask(found[callers[0]], "", f"long@{number}")[3] for number in (1, 2)}

        def answered() -> dict[str, int]:
            return {caller: ask(client, caller, "long@moving")[1] for caller, client in found.items()}

        def load(caller: str) -> None:
            while not stop.is_set():
                try:
                    replies.append(ask(found[caller], caller, "long@moving"))
                except Exception as error:
                    failures.append(error)
                    return

        assert set(answered().values()) == {1}
        threads = [threading.Thread(target=load, args=(caller,)) for caller in callers[:4]]
        for thread in threads:
            thread.start()
        try:
            for target in ({"1": 50.0, "2": 50.0}, "2", {"1": 30.0, "2": 70.0}, "1"):
                entry = registry.move_alias("long", "moving", target)
                wanted = {caller: entry.draw(caller).revision for caller in callers}
                moved = time.monotonic()
                while answered() != wanted:
                    assert time.monotonic() - moved < 60, f"the move to {target} was not followed"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not failures
    assert {number for _, number, _, _ in replies} == {1, 2}
    digests = {number: registry.resolve(f"long@{number}").digest for number in (1, 2)}
    wrong = [r for r in replies if r[3] != golden[r[1]] or r[2] != digests[r[1]]]
    assert not wrong, f"{len(wrong)} of {len(replies)} answers are not those of the revision they name"


async def test_an_adapter_that_floods_the_server_does_not_starve_the_others(server: Served) -> None:
    flood_size = 96
    victims = [f"calm-{index}" for index in range(3)]
    for index, name in enumerate(victims):
        server.deck.publish(name, "long_qa", 80 + index, max_tokens=8)
    waits: dict[str, list[float]] = {name: [] for name in victims}
    flood: list[float] = []

    async with AsyncClient(server.inference, timeout=600) as client:

        async def one(name: str, max_tokens: int) -> float:
            sampling = Sampling(temperature=0, max_tokens=max_tokens)
            answer = await client.answer_long("What?", context=CONTEXT, adapter=name, sampling=sampling).result()
            return answer.provenance.queue_seconds

        async def flooding() -> None:
            while True:
                flood.append(await one("long", 24))

        async def calm(name: str) -> None:
            for _ in range(6):
                waits[name].append(await one(name, 8))

        async def flood_answers(count: int) -> None:
            flood.clear()
            async with asyncio.timeout(120):
                while len(flood) < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        for name in victims:
            await one(name, 8)
        # So few at a time that the flood waits in the queue, however fast the engine and however slow its callers.
        with server.limits(concurrent=4, concurrent_per_adapter=4):
            running = [asyncio.create_task(flooding()) for _ in range(flood_size)]
            await flood_answers(flood_size)
            async with asyncio.timeout(120):
                await asyncio.gather(*map(calm, victims))
            await flood_answers(flood_size // 4)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    # Whoever asks for little goes before the flood's queue, which in the order of arrival would all be served first.
    slowest = max(statistics.median(found) for found in waits.values())
    assert slowest < statistics.median(flood) / 4, (slowest, statistics.median(flood))
