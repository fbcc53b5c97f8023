"""The process of a server: its event loop, its signals' last word, and its garbage."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

from loradeck_serve.app import Server
from loradeck_serve.config import ServerConfig
from loradeck_serve.reload import SettingsSource
from loradeck_serve.sources import Sources


def serve(
    config: ServerConfig,
    settings: SettingsSource,
    starting: Callable[[], None],
    ready: Callable[[Server], None],
) -> None:
    """Find everything, start, and serve until SIGTERM or Ctrl+C. Raises LoradeckError with one line.

    Calls `starting` once base, registry and ports are found good, before the long start of the engine.
    """
    sources = Sources.find(config)

    async def run() -> None:
        server = Server(sources, settings=settings)

        def up() -> None:
            settle()
            ready(server)

        starting()
        await server.run(up)
        if server.engine_is_starting:
            _leave_at_once()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


def settle() -> None:
    """To be called once, when everything is up: what is there now stays, and garbage collections leave it alone.

    Otherwise every full collection looks again at the 700,000 objects of torch, transformers and vLLM, and nobody is
    answered meanwhile: up to a third of a second. And full collections would be rare, since they wait until a quarter
    as many objects have come.
    """
    gc.collect()
    gc.freeze()


def _leave_at_once() -> None:
    """End this process and its children without waiting for the thread in which the engine is still being started.

    That thread cannot be stopped and takes tens of seconds; Python would wait for it.
    """
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=5)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it is installed (vLLM brings it): a streamed token costs a tenth less with it."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
