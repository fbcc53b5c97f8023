"""The watcher: notices what other writers do to the registry, and flips aliases here once the new revision is ready."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime

from loradeck_registry.changes import Change
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_serve.catalog.catalog import Catalog
from loradeck_serve.catalog.swapper import Swapper

_log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.5, 1, 2, 5, 10, 30)
"""Waits between attempts to follow a move after a passing failure."""
STALE_SECONDS = 30.0
"""After this long without a successful look at the registry, aliases may be out of date and a warning is logged."""


class Watcher:
    """Looks at the registry's change markers every `interval` seconds and refreshes the names they mention."""

    def __init__(
        self, registry: Registry, catalog: Catalog, swapper: Swapper, executor: Executor, interval: float,
        failed: Callable[[str, str], None], prepare: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """`prepare` is told of every move that the servers on the registry are asked to make together, repeatedly."""
        self._registry = registry
        self._catalog = catalog
        self._swapper = swapper
        self._executor = executor
        self._interval = interval
        self._failed = failed
        self._prepare = prepare
        self._refreshes: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, float] = {}
        """When a name whose last refresh failed is tried again, unless it changes before; monotonic."""
        self._attempts: dict[str, int] = {}
        self._newest: dict[str, str] = {}
        """The newest change marker seen of each name, to tell a new move from one that comes back in the window."""
        self.last_success = time.monotonic()

    async def run(self) -> None:
        """Watch until cancelled."""
        start = datetime.now(UTC)
        warned = False
        loop = asyncio.get_running_loop()
        try:
            while True:
                begin = time.monotonic()
                try:
                    window = datetime.now(UTC)
                    changes = await loop.run_in_executor(self._executor, self._registry.changes, start)
                    start = window
                    self.last_success, warned = begin, False
                    for change in changes:
                        if change.move is not None:
                            self._prepare(change.move)
                    for name in self._due(changes, begin):
                        self._refresh(name)
                    self._catalog.forget_idle()
                except Exception as error:
                    if not warned and begin - self.last_success > STALE_SECONDS:
                        warned = True
                        _log.warning("registry not reachable: aliases may be out of date", extra={"error": str(error)})
                await asyncio.sleep(max(self._interval - (time.monotonic() - begin), 0.01))
        finally:
            for task in self._refreshes.values():
                task.cancel()

    def _due(self, changes: list[Change], now: float) -> set[str]:
        due = {name for name, time in self._again.items() if time <= now}
        newest = {change.name: change.id for change in changes}
        for name, identifier in newest.items():
            if self._newest.get(name) != identifier:
                self._attempts.pop(name, None)
                due.add(name)
            elif name not in self._again:
                due.add(name)
        self._newest = newest
        return due

    def _refresh(self, name: str) -> None:
        if name not in self._refreshes and self._catalog.pointers({name}):
            self._refreshes[name] = asyncio.create_task(self._follow(name), name=f"refresh {name}")

    async def _follow(self, name: str) -> None:
        seen = self._newest.get(name)
        try:
            failure = await self._swapper.refresh(name)
            if failure is None:
                self._again.pop(name, None)
                self._attempts.pop(name, None)
                return
            attempt = self._attempts.get(name, 0)
            if attempt == 0:
                self._failed(name, failure.reason)
                _log.warning(
                    "a move could not be followed: the alias stays where it was here",
                    extra={"adapter": name, "reason": failure.reason, "error": failure.message},
                )
            if self._newest.get(name) not in (seen, None):
                # Moved again meanwhile: what failed is no longer meant, and the next look follows what is.
                return
            self._attempts[name] = attempt + 1
            wait = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
            self._again[name] = time.monotonic() + (max(wait, 30) if isinstance(failure, PreconditionError) else wait)
        except Exception:
            _log.exception("refresh failed", extra={"adapter": name})
        finally:
            self._refreshes.pop(name, None)
