"""Quotas of a caller: a little too much waits, more is told when to come back, and nobody else notices."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import loradeck.inference.v1 as inference
from loradeck_serve.access.callers import Caller
from loradeck_serve.access.identity import Identity
from loradeck_serve.access.quotas import Quotas
from loradeck_serve.admission.rates import Bucket
from loradeck_serve.config import Limits
from loradeck_serve.live import Live
from tests.serve.access.people import People, with_key
from tests.serve.conftest import Running, Start
from tests.serve.errors import Failure, failure

CLASSIFY = inference.ClassifyRequest(adapter="clf", text="x")


async def flood(running: Running, key: str, count: int, request: Any = CLASSIFY) -> list[Failure | None]:
    """`count` calls at once: None for an answer."""
    method = "Classify" if isinstance(request, inference.ClassifyRequest) else "AnswerShort"

    async def one() -> Failure | None:
        call = getattr(running.inference, method)(request, metadata=with_key(key), timeout=30)
        try:
            await call
        except Exception:
            return await failure(call)
        return None

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def test_requests_per_second(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, web={"adapters": ["*"], "requests_per_second": 4}, other={"adapters": ["*"]})
    web, other = people.key("web"), people.key("other")
    running = await start(access=people.settings, limits={"quota_wait_seconds": 0.6})
    assert await flood(running, other, 1) == [None]
    found = await flood(running, web, 20)
    refused = [f for f in found if f is not None]
    # A second's worth at once, and what waits at most 0.6 s behind it.
    assert 4 <= len(found) - len(refused) <= 8
    assert {(f.code, f.reason) for f in refused} == {("RESOURCE_EXHAUSTED", "RATE_LIMITED")}
    assert all(f.retry_seconds and 0.5 < f.retry_seconds < 2 for f in refused)
    assert "4 requests per second" in refused[0].message
    assert await flood(running, other, 20) == [None] * 20
    await asyncio.sleep(refused[0].retry_seconds or 1)
    assert await flood(running, web, 1) == [None]


async def test_concurrent_calls(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, web={"adapters": ["*"], "concurrent": 2}, other={"adapters": ["*"]})
    web, other = people.key("web"), people.key("other")
    running = await start(access=people.settings, limits={"quota_wait_seconds": 0.5})
    running.engine.gate.clear()
    calls = asyncio.create_task(flood(running, web, 10))
    await asyncio.sleep(1.2)
    assert running.engine.running.total() == 2
    neighbour = asyncio.create_task(flood(running, other, 1))
    await asyncio.sleep(0.2)
    assert running.engine.running.total() == 3
    running.engine.gate.set()
    found = await calls
    assert await neighbour == [None]
    assert found.count(None) == 2
    assert {(f.code, f.reason) for f in found if f} == {("RESOURCE_EXHAUSTED", "CONCURRENCY_LIMITED")}
    assert all(f.retry_seconds for f in found if f)
    # Places come back, also from callers who go away.
    running.engine.gate.clear()
    gone = [running.inference.Classify(CLASSIFY, metadata=with_key(web)) for _ in range(4)]
    await asyncio.sleep(0.2)
    for call in gone:
        call.cancel()
    await asyncio.sleep(0.2)
    running.engine.gate.set()
    assert await flood(running, web, 2) == [None, None]
    # What waits gets its turn when one ends in time.
    assert await flood(running, web, 4) == [None] * 4


async def test_tokens_per_minute_and_most_tokens(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, web={"adapters": ["*"], "tokens_per_minute": 300, "max_tokens": 8})
    web = people.key("web")
    running = await start(access=people.settings, limits={"quota_wait_seconds": 0})
    asked = inference.AnswerShortRequest(
        adapter="short", question="q", context="c", sampling=inference.Sampling(max_tokens=9)
    )
    (failed,) = await flood(running, web, 1, asked)
    assert failed is not None
    assert (failed.code, failed.reason, failed.field) == ("INVALID_ARGUMENT", "OUT_OF_RANGE", "sampling.max_tokens")
    assert "1 to 8" in failed.message
    request = inference.AnswerShortRequest(adapter="short", question="q", context="c")
    tokens, answers = 0, 0
    while True:
        call = running.inference.AnswerShort(request, metadata=with_key(web))
        try:
            reply = await call
        except Exception:
            failed = await failure(call)
            break
        answers += 1
        assert reply.usage.output_tokens <= 8, "the task's default is cut to the caller's limit"
        tokens += reply.usage.prompt_tokens + reply.usage.output_tokens
    assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "TOKENS_LIMITED")
    assert answers
    assert tokens <= 300 + 8
    assert failed.retry_seconds
    assert 0 < failed.retry_seconds < 60


@pytest.mark.parametrize("prompt", [50, 1000])
async def test_a_prompt_beyond_a_minute_waits_for_a_full_minute_and_is_paid_for_later(prompt: int) -> None:
    now = [100.0]
    quotas = Quotas(Live(Limits(quota_wait_seconds=0)), lambda: now[0])
    web = Identity("web", "key", "k", Caller(tokens_per_minute=600))
    await quotas.tokens(web, prompt)
    with pytest.raises(Exception, match="tokens per minute") as raised:
        await quotas.tokens(web, 600)
    wait = getattr(raised.value, "retry_after", 0)
    assert wait == pytest.approx(prompt / 10)
    now[0] += wait
    await quotas.tokens(web, 600)


def test_bucket_fills_to_its_burst_and_no_further() -> None:
    bucket = Bucket(2, 4)
    assert bucket.wait(0, 4) == 0
    bucket.take(0, 6)
    assert bucket.wait(0) == pytest.approx(1.5)
    assert bucket.wait(1.5) == 0
    assert bucket.wait(1000, 5) == pytest.approx(0.5)
