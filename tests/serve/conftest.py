"""Fixtures: one small deck for the session, and servers with a fake engine behind real gRPC doors."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_registry.bases.resolve import resolve_base
from loradeck_registry.registry import Registry
from loradeck_serve.app import Server
from loradeck_serve.config import ServerConfig, load_config
from loradeck_serve.reload import SettingsSource
from loradeck_serve.sources import Sources
from tests.serve.deck import Deck, fill, make_deck
from tests.serve.fake_engine import FakeEngine


@pytest.fixture(scope="session")
def made_deck(tmp_path_factory: pytest.TempPathFactory) -> Deck:
    """The deck as published; tests that write get a copy (`deck`)."""
    deck = make_deck(tmp_path_factory.mktemp("deck"))
    fill(deck)
    return deck


@pytest.fixture
def deck(made_deck: Deck, tmp_path: Path) -> Deck:
    """A deck of the test's own."""
    folder = tmp_path / "deck"
    folder.mkdir()
    shutil.copytree(made_deck.folder / "registry", folder / "registry")
    (folder / "base").symlink_to(made_deck.folder / "base")
    registry = Registry.open(folder / "registry", cache=folder / "writer-cache")
    return Deck(folder, resolve_base(f"dir:{made_deck.folder / 'base'}", registry), registry)


@dataclass
class Running:
    """A server in this process, its fake engines (one per start), and stubs."""

    server: Server
    engines: list[FakeEngine]
    inference: Any
    admin: Any
    task: asyncio.Task[None]
    channels: list[Any] = field(default_factory=list)

    @property
    def engine(self) -> FakeEngine:
        """The newest engine."""
        return self.engines[-1]


Start = Callable[..., Awaitable[Running]]


@pytest_asyncio.fixture
async def start(deck: Deck) -> AsyncIterator[Start]:
    """Start servers: `await start(engine={...}, **settings)`. They are stopped afterwards.

    With `file=PATH` the settings of that file come on top, and are read again when it changes.
    """
    async with AsyncExitStack() as stack:

        async def begin(engine: dict[str, Any] | None = None, file: Path | None = None, **settings: Any) -> Running:
            return await stack.enter_async_context(running(deck, engine or {}, settings, file))

        yield begin


@asynccontextmanager
async def running(
    deck: Deck, engine: dict[str, Any], settings: dict[str, Any], file: Path | None = None
) -> AsyncIterator[Running]:
    """One server with a fake engine."""
    options: dict[str, Any] = {
        "base": f"dir:{deck.base.folder}", "registry": deck.url, "cache": deck.cache, "slots": 2, "host_adapters": 4,
        "inference": 0, "admin": 0, "metrics": 0, "watch_interval_seconds": 0.05, "drain_seconds": 5,
    }  # fmt: skip
    source = SettingsSource(lambda: load_config(file, options | settings, {}), file) if file is not None else None
    config = source.read() if source is not None else ServerConfig.model_validate(options | settings)
    engines: list[FakeEngine] = []

    async def start_engine() -> FakeEngine:
        engines.append(FakeEngine(slots=config.slots, host_adapters=config.host_adapters, **engine))
        return engines[-1]

    server = Server(Sources.find(config), start_engine, source)
    ready = asyncio.Event()
    task = asyncio.create_task(server.run(ready.set, signals=False))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED, timeout=30)
    if task.done():
        waiting.cancel()
        task.result()
    assert ready.is_set()
    first = grpc.aio.insecure_channel(str(server.addresses.inference))
    second = grpc.aio.insecure_channel(str(server.addresses.admin))
    try:
        yield Running(server, engines, inference.InferenceServiceStub(first), adapters.AdapterServiceStub(second), task)
    finally:
        await first.close()
        await second.close()
        server.stop()
        server.stop()
        await asyncio.wait([task], timeout=20)
        assert task.done(), "the server did not stop"
        for fake in engines:
            fake.gate.set()
            assert not fake.violations
