"""Readers who do not read, deadlines, and limits that change while the server runs."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

import loradeck.inference.v1 as inference
from tests.serve.conftest import Running, Start
from tests.serve.errors import describe, failure
from tests.serve.waiting import until

LONG = inference.GenerateRequest(prompt="x", sampling=inference.Sampling(max_tokens=20_000))
SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
"""A client that lets the server send little before it has read."""


async def test_a_stream_that_nobody_reads_is_cut_and_frees_its_place(start: Start) -> None:
    running = await start(
        engine={"max_model_len": 40_000},
        limits={"max_tokens": 30_000, "write_stall_seconds": 1, "concurrent": 1, "chunk_milliseconds": 0},
    )
    running.engine.tokens = tuple(range(40, 50)) * 2000
    address = str(running.server.addresses.inference)
    async with grpc.aio.insecure_channel(address, options=SMALL_WINDOW) as channel:
        stalled = inference.InferenceServiceStub(channel).Generate(LONG)
        await stalled.read()
        await until(lambda: running.engine.running.total() == 1)
        # Nobody else gets in meanwhile; then the place is free without the reader having done anything.
        other = asyncio.create_task(_short(running))
        assert await asyncio.wait_for(other, 15)
        assert running.engine.aborted, "the engine went on for a reader who does not read"
        assert running.server._queue.empty
        # Who reads on after all learns why it ended.
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _read_on(stalled)
        failed = describe(raised.value)
        assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "SLOW_READER")


async def test_a_slow_reader_who_reads_is_served_to_the_end(start: Start) -> None:
    running = await start(
        engine={"max_model_len": 40_000},
        limits={"max_tokens": 30_000, "write_stall_seconds": 1, "chunk_milliseconds": 0},
    )
    running.engine.tokens = tuple(range(40, 50)) * 200
    request = inference.GenerateRequest(prompt="x", sampling=inference.Sampling(max_tokens=2000))
    address = str(running.server.addresses.inference)
    async with grpc.aio.insecure_channel(address, options=SMALL_WINDOW) as channel:
        final, count = "", 0
        async for message in inference.InferenceServiceStub(channel).Generate(request):
            final = message.WhichOneof("event")
            count += 1
            if count % 300 == 0:
                await asyncio.sleep(0.4)
    assert final == "final"
    assert not running.engine.aborted


async def _read_on(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def _short(running: Running) -> bool:
    request = inference.GenerateRequest(prompt="x", sampling=inference.Sampling(max_tokens=3))
    events = [m.WhichOneof("event") async for m in running.inference.Generate(request)]
    return events[-1] == "final"


async def test_deadlines_default_and_longest(start: Start) -> None:
    running = await start(limits={"default_deadline_seconds": 0.5, "max_deadline_seconds": 1})
    running.engine.gate.clear()
    request = inference.ClassifyRequest(adapter="clf", text="x")
    loop = asyncio.get_running_loop()
    for timeout, least, most in ((None, 0.4, 0.95), (60, 0.9, 3)):
        begin = loop.time()
        failed = await failure(running.inference.Classify(request, timeout=timeout))
        assert (failed.code, failed.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
        assert least < loop.time() - begin < most, timeout
    await until(lambda: not running.engine.running.total())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.inference.Classify(request, timeout=0.001)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_limits_change_while_the_server_runs(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"

    def write(**limits: object) -> None:
        file.write_text(yaml.safe_dump({"limits": limits}))

    write(text_characters=100)
    running = await start(file=file)
    request = inference.ClassifyRequest(adapter="clf", text="x" * 60)
    assert (await running.inference.Classify(request)).label
    write(text_characters=50, rate_per_adapter=1000, message_bytes=2048, prompt_tokens=20)
    await until(lambda: running.server._limits.now.text_characters == 50)
    failed = await failure(running.inference.Classify(request))
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "TEXT_TOO_LONG")
    assert running.server._limits.now.message_bytes == 4 << 20, "needs a restart"
    long = inference.AnswerShortRequest(adapter="short", question="a b c d e f g h i j k l m", context="c")
    failed = await failure(running.inference.AnswerShort(long))
    assert (failed.code, failed.reason, failed.metadata["limit"]) == ("INVALID_ARGUMENT", "PROMPT_TOO_LONG", "20")
    # What makes no sense changes nothing.
    file.write_text("limits: {text_characters: -1}")
    await asyncio.sleep(1.5)
    assert running.server._limits.now.text_characters == 50
    write(text_characters=100)
    running.server._reloader.now()
    assert (await running.inference.Classify(request)).label


async def test_a_lower_bound_holds_back_and_a_higher_one_lets_go_at_once(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("limits: {concurrent: 8, concurrent_per_adapter: 1}")
    running = await start(file=file)
    running.engine.gate.clear()
    request = inference.ClassifyRequest(adapter="clf", text="x")
    calls = [asyncio.create_task(_ask(running, request)) for _ in range(4)]
    await until(lambda: running.server._queue.waiting == 3)
    file.write_text("limits: {concurrent: 8, concurrent_per_adapter: 4}")
    await until(lambda: running.engine.running.total() == 4)
    running.engine.gate.set()
    assert all(await asyncio.gather(*calls))


async def _ask(running: Running, request: inference.ClassifyRequest) -> str:
    return str((await running.inference.Classify(request, timeout=30)).label)
