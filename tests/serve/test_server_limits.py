"""Limits and turns at the door: what is over a limit waits, and what no longer fits is told when to come back."""

import asyncio

import pytest

import loradeck.inference.v1 as inference
from tests.serve.conftest import Running, Start
from tests.serve.deck import Deck
from tests.serve.errors import failure
from tests.serve.waiting import until

CLASSIFY = inference.ClassifyRequest(adapter="clf", text="x")
OTHER = inference.ClassifyRequest(adapter="clf-text", text="x")
CALLER = (("x-loradeck-caller", "busy"),)


async def reached(running: Running) -> None:
    """Wait until a request is in the engine."""
    await until(running.engine.running.total)


def waiting(running: Running) -> float:
    """Requests that wait for their turn."""
    return sum(sample.value for family in running.server.metrics.waiting.collect() for sample in family.samples)


async def outcomes(running: Running, count: int) -> tuple[int, list[float]]:
    """How many of `count` requests of one adapter and caller are answered, and when the refused ones may come back."""

    async def one() -> float | None:
        call = running.inference.Classify(CLASSIFY, metadata=CALLER, timeout=20)
        try:
            await call
        except Exception:
            failed = await failure(call)
            assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
            return failed.retry_seconds or 0.0
        return None

    found = await asyncio.gather(*(one() for _ in range(count)))
    refused = [retry for retry in found if retry is not None]
    return count - len(refused), refused


@pytest.mark.parametrize(
    "limit", [{"concurrent_per_adapter": 1}, {"concurrent_per_caller": 1}, {"rate_per_adapter": 2},
              {"rate_per_caller": 2}], ids=str,
)  # fmt: skip
async def test_over_a_limit_requests_wait_and_over_the_queue_they_are_refused(
    start: Start, limit: dict[str, float]
) -> None:
    running = await start(engine={"step_seconds": 0.05}, limits={**limit, "queue_per_adapter": 4})
    await running.inference.Classify(OTHER)
    flood = asyncio.create_task(outcomes(running, 40))
    await asyncio.sleep(0.05)
    # Another adapter, and another caller, is not held up by it.
    other = await asyncio.wait_for(running.inference.Classify(OTHER), 20)
    assert other.provenance.queue_time.ToNanoseconds() < 0.3e9
    answered, refused = await flood
    assert 4 <= answered < 40, "what is over the limit was refused instead of waiting, or not limited at all"
    assert refused
    assert all(0 < retry <= 30 for retry in refused)
    # And later there is room again.
    await running.inference.Classify(CLASSIFY, metadata=CALLER, timeout=20)


async def test_adapter_is_loaded_while_its_request_waits_for_a_turn(start: Start, deck: Deck) -> None:
    running = await start(limits={"concurrent": 1})
    running.engine.gate.clear()
    first = asyncio.ensure_future(running.inference.Classify(CLASSIFY))
    await reached(running)
    second = asyncio.ensure_future(running.inference.Classify(OTHER))
    wanted = deck.registry.resolve("clf-text").digest
    # Ahead of its turn:
    await until(lambda: wanted in running.engine.loaded)
    assert running.engine.running.total() == 1
    running.engine.gate.set()
    await asyncio.gather(first, second)


async def test_swaps_are_bounded_and_nobody_is_refused_for_it(start: Start) -> None:
    running = await start(slots=1, fairness={"swaps_per_second": 4})
    await asyncio.gather(running.inference.Classify(CLASSIFY), running.inference.Classify(OTHER))
    begin = asyncio.get_running_loop().time()
    for _ in range(4):
        await running.inference.Classify(CLASSIFY)
        await running.inference.Classify(OTHER)
    assert asyncio.get_running_loop().time() - begin > 0.7
    assert running.engine.most_distinct == 1


async def test_weights_of_the_configuration_reach_the_queue(start: Start) -> None:
    running = await start(
        slots=2, limits={"concurrent": 1}, fairness={"weights": {"clf": 4.0}, "quantum_seconds": 0.01},
        engine={"step_seconds": 0.002},
    )  # fmt: skip
    await asyncio.gather(running.inference.Classify(CLASSIFY), running.inference.Classify(OTHER))
    order: list[str] = []

    async def one(request: inference.ClassifyRequest) -> None:
        await running.inference.Classify(request)
        order.append(request.adapter)

    running.engine.gate.clear()
    all_of_them = [asyncio.ensure_future(one(request)) for _ in range(40) for request in (CLASSIFY, OTHER)]
    await until(lambda: waiting(running) == len(all_of_them) - 1)
    running.engine.gate.set()
    await asyncio.gather(*all_of_them)
    first = order[: len(order) // 2]
    assert first.count("clf") > 2 * first.count("clf-text")
