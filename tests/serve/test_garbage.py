"""What a call leaves behind when it is over: nothing that has to wait for a full garbage collection."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest

import loradeck.inference.v1 as inference
from loradeck_serve.grpc.interceptor import _forget_frames
from tests.serve.conftest import Running, Start

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
        _forget_frames(error)
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
