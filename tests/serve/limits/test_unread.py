"""Callers who leave replies unread: gRPC keeps those, so a caller with many of them is refused until they are gone."""

import asyncio
import gc
import struct
from typing import Any

import grpc
import pytest

import loradeck.inference.v1 as inference
from loradeck_registry.errors import ExhaustedError
from loradeck_serve.grpc.unread import MOST, Kept, Unread
from tests.serve.conftest import Running, Start
from tests.serve.errors import Failure, describe, failure
from tests.serve.limits import http2
from tests.serve.limits.http2 import Connection
from tests.serve.limits.test_streams import LONG, SMALL_WINDOW
from tests.serve.waiting import until

LAST = 1
"""The last call of a door stays with grpc.aio until the next one comes."""


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> list[Unread]:
    """What the doors of servers that are started from here on count."""
    made: list[Unread] = []

    def make() -> Unread:
        made.append(Unread())
        return made[-1]

    monkeypatch.setattr("loradeck_serve.grpc.interceptor.Unread", make)
    return made


def held(unread: list[Unread]) -> int:
    """Replies of all callers."""
    return sum(len(replies) for one in unread for replies in one._held.values())


async def refused(stub: Any, request: inference.GenerateRequest) -> Failure:
    """How a call of a caller ends whose unread replies have become too old."""
    async with asyncio.timeout(30):
        while True:
            try:
                async for _ in stub.Generate(request):
                    pass
            except grpc.aio.AioRpcError as error:
                return describe(error)
            await asyncio.sleep(0.1)


async def test_a_caller_with_many_unread_streams_is_refused_until_they_are_gone(
    start: Start, unread: list[Unread]
) -> None:
    running = await start(
        engine={"max_model_len": 40_000},
        limits={"max_tokens": 30_000, "write_stall_seconds": 1, "concurrent": 200, "chunk_milliseconds": 0},
    )
    running.engine.tokens = tuple(range(40, 50)) * 2000
    address = str(running.server.addresses.inference)
    short = inference.GenerateRequest(prompt="x", sampling=inference.Sampling(max_tokens=3))
    async with grpc.aio.insecure_channel(address, options=SMALL_WINDOW) as channel:
        # More than needed: on a slow machine one may be cut before it is stuck, and end.
        calls = [inference.InferenceServiceStub(channel).Generate(LONG) for _ in range(MOST + 16)]
        await asyncio.gather(*(call.read() for call in calls))
        await until(lambda: not running.engine.running.total())
        failed = await refused(running.inference, short)
        assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "UNREAD_REPLIES")
        assert failed.retry_seconds == 1
        assert held(unread) >= MOST
        for call in calls[: 16 + 8]:
            call.cancel()
        await until(lambda: held(unread) <= MOST - 8 + LAST)
        assert [m.WhichOneof("event") async for m in running.inference.Generate(short)][-1] == "final"
        running.engine.tokens = tuple(range(40, 50))
    await until(lambda: held(unread) <= LAST)


async def takes_nothing(running: Running, streams: int) -> Connection:
    """A connection with streams for whose messages it leaves no room."""
    body = inference.GenerateRequest(prompt="x").SerializeToString()
    no_room = struct.pack(">HI", http2.INITIAL_WINDOW_SIZE, 0)
    connection = await Connection.open(running.server.addresses.inference, no_room)
    for stream in range(1, 2 * streams, 2):
        connection.call(stream, b"/loradeck.inference.v1.InferenceService/Generate")
        connection.send(http2.DATA, http2.END_STREAM, stream, struct.pack(">BI", 0, len(body)) + body)
    return connection


async def test_streams_of_which_nothing_can_be_sent_are_gone_with_their_connection(
    start: Start, unread: list[Unread], caplog: pytest.LogCaptureFixture
) -> None:
    running = await start(limits={"write_stall_seconds": 0.5})
    connection = await takes_nothing(running, 10)
    await until(lambda: held(unread) == 10)
    assert not running.engine.running.total(), "a stream that takes nothing keeps its place in the engine"
    connection.close()
    await until(lambda: held(unread) <= LAST)
    await asyncio.sleep(0.2)
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_streams_that_are_cut_and_left_at_the_same_time_are_gone(start: Start, unread: list[Unread]) -> None:
    running = await start(limits={"write_stall_seconds": 0.5})
    for _ in range(3):
        connection = await takes_nothing(running, 10)
        await until(lambda: running.engine.running.total() == 10)
        await until(lambda: not running.engine.running.total())
        # They have been cut, and the server waits a little whether their first message can go after all.
        await asyncio.sleep(0.3)
        connection.close()
    await until(lambda: held(unread) <= LAST)


async def test_a_stream_that_is_cut_before_its_first_message_gets_its_status_when_it_reads_on(start: Start) -> None:
    running = await start(limits={"write_stall_seconds": 0.2})
    connection = await takes_nothing(running, 1)
    await until(lambda: running.engine.running.total() == 1)
    await until(lambda: not running.engine.running.total())
    await asyncio.sleep(1.5)
    connection.send(http2.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1 << 20))
    while not (frame := await connection.until(http2.HEADERS)) or not frame.flags & http2.END_STREAM:
        assert frame is not None, "the connection ended without a status"
    assert b"nothing was read for" in frame.payload
    connection.close()


async def test_replies_that_are_read_are_not_kept(start: Start, unread: list[Unread]) -> None:
    running = await start()
    request = inference.ClassifyRequest(adapter="clf", text="x")
    bad = inference.ClassifyRequest(adapter="absent", text="x")
    for _ in range(5):
        await asyncio.gather(*(running.inference.Classify(request) for _ in range(40)))
        await asyncio.gather(*(failure(running.inference.Classify(bad)) for _ in range(40)))
    gc.disable()
    try:
        # Without the garbage collector: a cycle would keep every call for a while.
        await until(lambda: held(unread) <= LAST)
    finally:
        gc.enable()


def test_only_old_replies_count_and_only_of_one_caller() -> None:
    now = 0.0
    unread = Unread(lambda: now)
    kept = [Kept(str(number)) for number in range(MOST + 1)]
    for one in kept[:MOST]:
        unread.ended("web", one)
    unread.check("web", 10)
    now = 11
    with pytest.raises(ExhaustedError):
        unread.check("web", 10)
    unread.check("other", 10)
    kept[0] = kept[-1]
    unread.check("web", 10)
    # A busy caller: many replies on their way, none of them old.
    busy = [Kept(str(number)) for number in range(10 * MOST)]
    for one in busy:
        unread.ended("busy", one)
    unread.check("busy", 10)


def test_callers_are_forgotten() -> None:
    unread = Unread()
    for number in range(5000):
        unread.ended(f"host-{number}", Kept("x"))
    assert len(unread._held) <= 1024
