"""The watcher: notices what other writers do to the registry, and flips aliases here once the new revision is ready."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from datetime import UTC, datetime

from loradeck_registry.changes import Change
from loradeck_registry.errors import LoradeckError, PreconditionError
from loradeck_registry.registry import Registry
from loradeck_serve.catalog import Catalog, Pointer
from loradeck_serve.domain import AliasFlip
from loradeck_serve.meaning import Meaning
from loradeck_serve.residency.manager import ResidencyManager

_log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.5, 1, 2, 5, 10, 30)
"""Waits between attempts to follow a move after a passing failure."""
STALE_SECONDS = 30.0
"""After this long without a successful look at the registry, aliases may be out of date and a warning is logged."""


class Swapper:
    """Moves what this server means by an alias: load the new, flip in one step, let the old go.

    Moves of one name happen one after the other, so that the last word of the registry is the last flip here.
    """

    def __init__(
        self, catalog: Catalog, residency: ResidencyManager, flipped: Callable[[AliasFlip, float], None]
    ) -> None:
        self._catalog = catalog
        self._residency = residency
        self._flipped = flipped
        self._locks: dict[str, asyncio.Lock] = {}

    def lock(self, name: str) -> asyncio.Lock:
        """Serialises the moves of one adapter name on this server."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def refresh(self, name: str) -> LoradeckError | None:
        """Bring the followed references of `name` up to date. Returns the error of a move that was not followed."""
        async with self.lock(name):
            failure: LoradeckError | None = None
            begin = time.monotonic()
            ready: list[tuple[Pointer, Meaning]] = []
            for pointer in self._catalog.pointers({name}):
                try:
                    meaning = await self._catalog.read(pointer.reference)
                    await self.load(meaning, pointer.meaning)
                    ready.append((pointer, meaning))
                except LoradeckError as error:
                    failure = error
            self.flip(ready, begin)
            return failure

    async def load(self, meaning: Meaning, present: Meaning | None = None) -> None:
        """Bring in what a reference will mean and does not mean at `present`, at once. Raises what a load raises."""
        new = [r for r in meaning.revisions if present is None or r.digest not in present.digests]
        results = await asyncio.gather(*map(self._residency.ensure, new), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def flip(self, moves: Iterable[tuple[Pointer, Meaning]], begin: float) -> None:
        """Flip references to what is loaded already, all in one step. The caller holds the name's lock."""
        flips: dict[str, AliasFlip] = {}
        replaced: dict[str, str] = {}
        for pointer, meaning in moves:
            old = pointer.meaning
            flip = self._catalog.flip(pointer, meaning)
            if not meaning.same_as(old):
                # A bare name and the alias behind it are two references, and one flip.
                flips[flip.alias] = flip
                replaced |= dict.fromkeys(old.digests - meaning.digests, pointer.reference.name)
        for flip in flips.values():
            self._flipped(flip, time.monotonic() - begin)
            _log.info("alias flipped", extra={"adapter": flip.name, "alias": flip.alias,
                                              "from": flip.previous_revision, "to": flip.revision})  # fmt: skip
        for digest, name in replaced.items():
            if not any(digest in p.meaning.digests for p in self._catalog.pointers({name})):
                self._residency.retire(digest)


class Watcher:
    """Looks at the registry's change markers every `interval` seconds and refreshes the names they mention."""

    def __init__(
        self, registry: Registry, catalog: Catalog, swapper: Swapper, executor: Executor, interval: float,
        failed: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self._registry = registry
        self._catalog = catalog
        self._swapper = swapper
        self._executor = executor
        self._interval = interval
        self._failed = failed
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
            self._attempts[name] = attempt + 1
            wait = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]
            self._again[name] = time.monotonic() + (max(wait, 30) if isinstance(failure, PreconditionError) else wait)
        except Exception:
            _log.exception("refresh failed", extra={"adapter": name})
        finally:
            self._refreshes.pop(name, None)
