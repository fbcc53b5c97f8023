"""The engine's supervisor: starts it, notices its death, and starts it again with what it held."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from loradeck_registry.errors import LoradeckError, UnavailableError
from loradeck_serve.engine.base import Engine
from loradeck_serve.engine_handle import EngineHandle
from loradeck_serve.observation.metrics import Metrics
from loradeck_serve.residency.manager import ResidencyManager

_log = logging.getLogger(__name__)

HEALTHY_SECONDS = 600.0
"""After this long without a death, earlier ones no longer count."""


class EngineSupervisor:
    """Owns the engine. `set_serving` is told when requests can be taken and when not, with a reason."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Engine]],
        handle: EngineHandle,
        residency: ResidencyManager,
        set_serving: Callable[[str | None], Awaitable[None]],
        metrics: Metrics,
        most_restarts: int,
    ) -> None:
        self._start = start
        self._handle = handle
        self._residency = residency
        self._set_serving = set_serving
        self._metrics = metrics
        self._most_restarts = most_restarts
        self._engine: Engine | None = None
        self.starting = False
        """Whether an engine is on its way up. A start that is given up meanwhile goes on in its thread."""

    async def start(self) -> None:
        """Start an engine. Raises what the engine raises."""
        self.starting = True
        self._engine = await self._start()
        self.starting = False
        self._handle.put(self._engine)

    async def run(self) -> None:
        """Watch and restart until cancelled. Raises UnavailableError when the engine dies too often."""
        deaths = 0
        while True:
            assert self._engine is not None
            begin = time.monotonic()
            reason = await self._engine.wait_dead()
            deaths = deaths + 1 if time.monotonic() - begin < HEALTHY_SECONDS else 1
            _log.error("engine died", extra={"reason": reason, "deaths": deaths})
            await self._set_serving("ENGINE_RESTARTING")
            self._handle.take()
            lost = self._residency.engine_lost()
            await self._engine.stop()
            if deaths > self._most_restarts:
                raise UnavailableError(
                    f"the engine died {deaths} times, last: {reason}; giving up", reason="ENGINE_DEAD"
                )
            await asyncio.sleep(min(2.0 ** (deaths - 1) - 1, 30))
            await self.start()
            self._metrics.engine_restarts.inc()
            for revision in lost:
                try:
                    await self._residency.ensure(revision)
                except LoradeckError as error:
                    _log.warning("adapter not restored", extra={"adapter": str(revision), "reason": error.reason})
            await self._set_serving(None)
            _log.info("engine restarted", extra={"adapters": len(lost)})

    async def stop(self) -> None:
        """Stop the engine if there is one."""
        engine = self._handle.take() or self._engine
        if engine is not None:
            await engine.stop()
