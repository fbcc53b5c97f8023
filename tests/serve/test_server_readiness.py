"""Readiness: a probe can tell a server that is loading from one that is broken, and both from one that is dead."""

import asyncio
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import loradeck.inference.v1 as inference
from loradeck_serve.app import Server
from loradeck_serve.config import ServerConfig
from loradeck_serve.sources import Sources
from tests.serve.deck import Deck
from tests.serve.errors import failure
from tests.serve.fake_engine import FakeEngine

Health = dict[str, str]
LOADING: Health = {"": "NOT_SERVING", "startup": "NOT_SERVING", "liveness": "SERVING"}
READY: Health = {"": "SERVING", "startup": "SERVING", "liveness": "SERVING"}
BROKEN: Health = {"": "NOT_SERVING", "startup": "SERVING", "liveness": "SERVING"}


async def health(channel: Any) -> Health:
    """What each entry says."""
    stub = health_pb2_grpc.HealthStub(channel)
    found = {}
    for service in LOADING:
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        found[service] = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    return found


async def until(channel: Any, wanted: Health) -> None:
    """Wait until health is as wanted."""
    begin = time.monotonic()
    while (now := await health(channel)) != wanted:
        assert time.monotonic() - begin < 30, now
        await asyncio.sleep(0.02)


async def test_loading_ready_and_broken_are_three_answers(deck: Deck) -> None:
    config = ServerConfig.model_validate({
        "base": f"dir:{deck.base.folder}", "registry": deck.url, "cache": deck.cache, "slots": 2, "host_adapters": 4,
        "inference": 0, "admin": 0, "metrics": 0, "drain_seconds": 5,
    })  # fmt: skip
    engines: list[FakeEngine] = []
    may_start = asyncio.Event()

    async def start_engine() -> FakeEngine:
        await may_start.wait()
        engines.append(FakeEngine(slots=config.slots, host_adapters=config.host_adapters))
        return engines[-1]

    server = Server(Sources.find(config), start_engine)
    running = asyncio.create_task(server.run(lambda: None, signals=False))
    try:
        async with grpc.aio.insecure_channel(str(server.addresses.inference)) as channel:
            stub: Any = inference.InferenceServiceStub(channel)
            await until(channel, LOADING)
            refused = await failure(stub.Classify(inference.ClassifyRequest(adapter="clf", text="x")))
            assert (refused.code, refused.reason, refused.retry_seconds) == ("UNAVAILABLE", "STARTING", 5)
            may_start.set()
            await until(channel, READY)
            may_start.clear()
            engines[0].die()
            await until(channel, BROKEN)
            refused = await failure(stub.Classify(inference.ClassifyRequest(adapter="clf", text="x")))
            assert (refused.code, refused.reason) == ("UNAVAILABLE", "ENGINE_RESTARTING")
            may_start.set()
            await until(channel, READY)
    finally:
        server.stop()
        server.stop()
        await asyncio.wait_for(running, 20)
