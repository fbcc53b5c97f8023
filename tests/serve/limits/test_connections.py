"""What a connection may do: pings, metadata, streams, silence, and bytes that are no gRPC."""

import asyncio
import struct
from collections import Counter
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import loradeck.inference.v1 as inference
from tests.serve.conftest import Running, Start
from tests.serve.errors import describe, failure
from tests.serve.limits import http2
from tests.serve.limits.http2 import Connection

CLASSIFY = inference.ClassifyRequest(adapter="clf", text="x")
PATH = b"/loradeck.inference.v1.InferenceService/Classify"


async def answers(running: Running) -> None:
    """The server still serves, over connections old and new."""
    assert (await running.inference.Classify(CLASSIFY, timeout=20)).label
    async with grpc.aio.insecure_channel(str(running.server.addresses.inference)) as channel:
        assert (await inference.InferenceServiceStub(channel).Classify(CLASSIFY, timeout=20)).label


async def test_a_flood_of_pings_closes_its_connection_and_no_other(start: Start) -> None:
    running = await start()
    flood = await Connection.open(running.server.addresses.inference)
    for number in range(200):
        flood.send(http2.PING, 0, 0, struct.pack(">Q", number))
    # The reason may be lost with the connection, which the other end closes while pings are still on their way.
    if (goaway := await flood.until(http2.GOAWAY)) is not None:
        assert struct.unpack(">I", goaway.payload[4:8])[0] == http2.ENHANCE_YOUR_CALM
        assert await flood.until(http2.GOAWAY) is None
    flood.close()
    await answers(running)


async def test_endless_metadata_takes_no_memory_and_holds_nobody_up(start: Start) -> None:
    running = await start(connections={"metadata_bytes": 4096})
    await answers(running)
    endless = await Connection.open(running.server.addresses.inference)
    endless.call(1, PATH, flags=0)
    piece = b"".join(http2.field(b"x-more-%d" % n, b"y" * 1000) for n in range(15))
    used = []
    try:
        for number in range(16_000):
            endless.send(http2.CONTINUATION, 0, 1, piece)
            await endless.writer.drain()
            if number % 4000 == 3999:
                await answers(running)
                used.append(psutil.Process().memory_info().rss)
    finally:
        endless.close()
    assert used[-1] - used[0] < 90 << 20, "of 180 MB of metadata more than half was kept"
    await answers(running)


async def test_huge_metadata_is_refused(start: Start) -> None:
    running = await start(connections={"metadata_bytes": 4096})
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.inference.Classify(CLASSIFY, metadata=(("x-big", "y" * 100_000),), timeout=10)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    many = tuple((f"x-{number}", "y" * 20) for number in range(1000))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.inference.Classify(CLASSIFY, metadata=many, timeout=10)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await answers(running)


@pytest.mark.parametrize(
    ("path", "metadata"),
    [
        (b"/\xff\xfe", ()),
        (PATH + b"\xc3", ()),
        (b"", ()),
        (PATH, ((b"x-request-id", b"\xff\xfe"),)),
        (PATH, ((b"x-odd-bin", b"!!! not base64 !!!"),)),
        (PATH, ((b"grpc-timeout", b"99999999999999999H"),)),
        (PATH, ((b"grpc-timeout", b"-1S"),)),
        (PATH, ((b"grpc-encoding", b"nonsense"),)),
        (PATH, ((b"authorization", b"Bearer \xff"),)),
    ],
    ids=str,
)
async def test_bytes_that_are_no_text_end_one_call_only(
    start: Start, path: bytes, metadata: tuple[tuple[bytes, bytes], ...]
) -> None:
    running = await start()
    odd = await Connection.open(running.server.addresses.inference)
    odd.call(1, path, *metadata)
    odd.send(http2.DATA, http2.END_STREAM, 1, b"\0" + struct.pack(">I", 0))
    await asyncio.sleep(0.3)
    odd.close()
    await answers(running)


async def test_silence_is_hung_up_on(start: Start) -> None:
    running = await start(connections={"handshake_seconds": 0.5})
    address = running.server.addresses.inference
    reader, writer = await asyncio.open_connection(address.host, address.port)
    async with asyncio.timeout(10):
        # gRPC may greet first; what matters is the end.
        while await reader.read(1024):
            pass
    writer.close()
    await answers(running)


async def test_streams_and_connections_are_bounded(start: Start) -> None:
    running = await start(connections={"streams": 7, "connections": 4})
    first = await Connection.open(running.server.addresses.inference)
    settings = await first.until(http2.SETTINGS)
    assert settings is not None
    pairs = dict(struct.iter_unpack(">HI", settings.payload))
    assert pairs[http2.MAX_CONCURRENT_STREAMS] == 7
    await running.inference.Classify(CLASSIFY)
    others: list[Any] = [await Connection.open(running.server.addresses.inference) for _ in range(8)]

    async def greeted(connection: Connection) -> bool:
        try:
            return await connection.until(http2.SETTINGS, 2) is not None
        except TimeoutError:
            return False

    taken = await asyncio.gather(*(greeted(other) for other in others))
    assert sum(taken) == 2, "two of the four places were free"
    for other in (first, *others):
        other.close()
    await answers(running)


async def test_a_call_without_its_message_ends_by_the_deadline_and_holds_nobody_up(start: Start) -> None:
    running = await start(limits={"default_deadline_seconds": 1, "calls": 4})
    idle = await Connection.open(running.server.addresses.inference)
    for number in range(4):
        idle.call(2 * number + 1, PATH)
    await asyncio.sleep(0.3)
    refused = await failure(running.inference.Classify(CLASSIFY, timeout=5))
    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
    assert refused.retry_seconds
    ended = await idle.until(http2.HEADERS, 5)
    assert ended is not None
    assert ended.flags & http2.END_STREAM
    await asyncio.sleep(0.5)
    await answers(running)
    idle.close()


async def test_a_burst_of_calls_is_answered_and_none_is_cut_off_without_a_word(start: Start) -> None:
    # gRPC's own bounds on what has arrived and was not taken up end calls as CANCELLED from 1,000 on.
    running = await start(limits={"calls": 2000})
    address = str(running.server.addresses.inference)
    local = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(address, options=local) for _ in range(5)]
    health = [health_pb2_grpc.HealthStub(channel) for channel in channels]
    stubs = [inference.InferenceServiceStub(channel) for channel in channels]
    for stub in health:
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)

    async def ask(number: int) -> str:
        try:
            await stubs[number % len(stubs)].Classify(CLASSIFY, timeout=120)
        except grpc.aio.AioRpcError as error:
            return describe(error).reason
        return "OK"

    try:
        seen = Counter(await asyncio.gather(*(ask(number) for number in range(4500))))
    finally:
        for channel in channels:
            await channel.close()
    assert seen["OK"]
    assert seen.keys() <= {"OK", "TOO_MANY_CALLS", "QUEUE_FULL"}, seen
    await answers(running)
