"""What a call leaves behind when it is over: nothing that has to wait for a full garbage collection."""

import asyncio
import ctypes
import gc
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest

import loradeck.inference.v1 as inference
from loradeck_serve.grpc.interceptor import DoorInterceptor
from loradeck_serve.grpc.operations import forget_frames
from tests.serve.conftest import Running, Start
from tests.serve.limits import http2
from tests.serve.limits.http2 import Connection
from tests.serve.waiting import until

CALLS = 40


async def classify(running: Running, **fields: Any) -> None:
    """One call, however it ends."""
    timeout = fields.pop("timeout", 10)
    with suppress(grpc.RpcError):
        await running.inference.Classify(
            inference.ClassifyRequest(**{"adapter": "clf", "text": "x"} | fields), timeout=timeout
        )


async def cancel(running: Running) -> None:
    """A stream of which one message is read."""
    call = running.inference.Generate(inference.GenerateRequest(prompt="x"))
    await call.read()
    call.cancel()


ENDS: dict[str, Callable[[Running], Awaitable[None]]] = {
    "answered": classify,
    "refused": lambda running: classify(running, text=""),
    "not found": lambda running: classify(running, adapter="absent"),
    "bad name": lambda running: classify(running, adapter="../x"),
    "too late": lambda running: classify(running, timeout=0.002),
    "too late in the engine": lambda running: classify(running, adapter="clf@2", timeout=0.02),
    "cancelled": cancel,
}


def test_an_error_that_is_its_own_cause_is_forgotten_too() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    try:
        raise first
    except ValueError as error:
        forget_frames(error)
    assert first.__traceback__ is None


@pytest.mark.parametrize("how", ENDS)
async def test_a_call_that_is_over_is_gone(start: Start, how: str) -> None:
    running = await start(engine={"step_seconds": 0.0 if how != "too late in the engine" else 0.5})
    for _ in range(5):
        await ENDS[how](running)
    await asyncio.sleep(0.1)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(CALLS):
            await ENDS[how](running)
        await asyncio.sleep(0.6)
        gc.collect()
        left = Counter(type(found).__name__ for found in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # gRPC itself leaves five small objects for each call, and none of these. The last call is kept until the next.
    kept = {name: left[name] for name in ("RPCState", "frame", "traceback", "Task", "_ServicerContext")}
    assert max(kept.values()) <= 2, kept


class _Allocated(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


def allocated() -> int:
    """Bytes that this process has from malloc. (What is resident says less: freed memory stays.)"""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("needs mallinfo2, which is glibc's")
    libc.mallinfo2.restype = _Allocated
    found = libc.mallinfo2()
    return int(found.uordblks + found.hblkhd)


async def test_a_message_that_arrives_with_the_end_of_its_call_is_freed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors: list[DoorInterceptor] = []

    def door(*arguments: Any) -> DoorInterceptor:
        doors.append(DoorInterceptor(*arguments))
        return doors[-1]

    monkeypatch.setattr("loradeck_serve.app.DoorInterceptor", door)
    running = await start()
    connections, rounds, streams = 4, 3, range(1, 100, 2)
    body = inference.ClassifyRequest(adapter="clf", text="x" * 1000).SerializeToString()
    message = struct.pack(">BI", 0, len(body)) + body

    async def ended_while_read() -> None:
        opened = [await Connection.open(running.server.addresses.inference) for _ in range(connections)]
        for connection in opened:
            for stream in streams:
                connection.call(stream, b"/loradeck.inference.v1.InferenceService/Classify")
        await until(lambda: sum(door._calls for door in doors) == connections * len(streams))
        for connection in opened:
            for stream in streams:
                connection.send(http2.DATA, http2.END_STREAM, stream, message)
                connection.send(http2.RST_STREAM, 0, stream, struct.pack(">I", http2.CANCEL))
        await until(lambda: not any(door._calls for door in doors))
        for connection in opened:
            connection.close()

    async def afterwards() -> int:
        for _ in range(rounds):
            await ended_while_read()
        await asyncio.sleep(0.5)
        gc.collect()
        return allocated()

    await afterwards()
    before = await afterwards()
    left = (await afterwards() - before) / (rounds * connections * len(streams))
    # All of the message, and more, if its read is cancelled; 30 to 40 bytes are gRPC's own.
    assert left < 300, f"{left:.0f} bytes of each call stay"
