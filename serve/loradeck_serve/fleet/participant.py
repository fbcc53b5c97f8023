"""The participant: this server's part in moves of an alias that all servers make together, or none."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import TypeVar

from loradeck_registry.errors import LoradeckError, PreconditionError, UnavailableError
from loradeck_registry.fleet.records import Intent, Vote
from loradeck_registry.reference import Reference
from loradeck_registry.registry import Registry, Revision
from loradeck_serve.catalog.catalog import Catalog
from loradeck_serve.catalog.swapper import Swapper
from loradeck_serve.residency.manager import ResidencyManager
from loradeck_serve.served_base import ServedBase

_log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_SECONDS = 0.3
"""How often a move that is being prepared is looked at."""
_PATIENCE = 15.0
"""Seconds after the time of the move that the revision is still held: whoever moves may be about to write."""
_AGAIN = 0.5
_REMEMBERED = 1000


class Participant:
    """Loads what is about to be moved to, says whether it can be served here, and holds it until the outcome is known.

    `hide` takes this machine's places out of what others will read. All methods run on one event loop; the registry is
    asked in `executor`.
    """

    def __init__(
        self, registry: Registry, server: str, base: ServedBase, catalog: Catalog, swapper: Swapper,
        residency: ResidencyManager, executor: Executor, hide: Callable[[str], str],
    ) -> None:  # fmt: skip
        self._registry = registry
        self._server = server
        self._base = base
        self._catalog = catalog
        self._swapper = swapper
        self._residency = residency
        self._executor = executor
        self._hide = hide
        self._known: deque[str] = deque(maxlen=_REMEMBERED)
        self._moves: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    async def join(self) -> None:
        """Take part in what is under way already. Call it once this server is seen by the others."""
        try:
            for move in await self._ask(self._registry.open_moves):
                self.consider(move)
        except LoradeckError as error:
            _log.warning("moves under way are not known", extra={"reason": error.reason, "error": error.message})

    def consider(self, move: str) -> None:
        """Take part in a move, once, however often one hears of it."""
        if move not in self._known and not self._closed:
            self._known.append(move)
            task = self._moves[move] = asyncio.create_task(self._run(move), name=f"move {move}")
            task.add_done_callback(lambda _: self._moves.pop(move, None))

    async def close(self) -> None:
        """Take part in nothing any more."""
        self._closed = True
        tasks = list(self._moves.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, move: str) -> None:
        try:
            intent = await self._ask(self._registry.intent, move)
            ended: bool | None = await self._ask(self._registry.outcome, move)
            if intent is not None and ended is None and not intent.over(datetime.now(UTC)):
                await self._take_part(intent)
        except LoradeckError as error:
            _log.warning("a move made together failed here", extra={"move": move, "reason": error.reason,
                                                                     "error": error.message})  # fmt: skip
        except Exception:
            _log.exception("a move made together failed here", extra={"move": move})

    async def _take_part(self, intent: Intent) -> None:
        begin = time.monotonic()
        try:
            revision = await self._ask(self._registry.resolve, Reference(intent.name, revision=intent.revision))
            elsewhere = self._elsewhere(revision)
            if elsewhere is None:
                await self._prepare(revision, begin + intent.seconds)
        except LoradeckError as error:
            refusal = Vote(self._server, "refused", time.monotonic() - begin, error.reason, self._hide(error.message))
            await self._ask(self._registry.vote, intent.id, refusal)
            return
        if elsewhere is not None:
            other = Vote(self._server, "elsewhere", 0.0, elsewhere.reason, self._hide(elsewhere.message))
            await self._ask(self._registry.vote, intent.id, other)
            return
        # Held from before the answer until after the flip: nothing may push it out in between.
        async with self._residency.use(revision):
            ready = Vote(self._server, "ready", time.monotonic() - begin)
            await self._ask(self._registry.vote, intent.id, ready)
            moved = await self._outcome(intent, begin + intent.seconds + _PATIENCE)
            if moved and await self._flip(intent):
                await self._ask(self._registry.say_flipped, intent.id, self._server)
        _log.info("move prepared", extra={"adapter": intent.name, "alias": intent.alias, "revision": intent.revision,
                                          "moved": moved, "who": intent.who})  # fmt: skip

    def _elsewhere(self, revision: Revision) -> PreconditionError | None:
        """Why the move is no business of this server; None if it is.

        Servers of several bases may share a registry. One that follows the name now is concerned whatever the base.
        """
        if not self._residency.capacity:
            return PreconditionError("this server serves its base alone", reason="NO_ADAPTERS")
        try:
            self._base.check_compatible(revision)
        except PreconditionError as error:
            if self._catalog.pointers({revision.name}):
                raise
            return error
        return None

    async def _prepare(self, revision: Revision, until: float) -> None:
        while True:
            try:
                await self._residency.ensure(revision)
                return
            except UnavailableError:
                # The engine restarts, or the store is away for a moment.
                if time.monotonic() > until - _AGAIN:
                    raise
                await asyncio.sleep(_AGAIN)

    async def _outcome(self, intent: Intent, until: float) -> bool:
        """Whether the alias was moved; False when nobody says so in time."""
        while time.monotonic() < until:
            try:
                moved = await self._ask(self._registry.outcome, intent.id)
            except UnavailableError:
                moved = None
            if moved is not None:
                return moved
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _flip(self, intent: Intent) -> bool:
        """Follow the alias now, and not at the watcher's next look. Returns whether it means the revision here."""
        await self._swapper.refresh(intent.name)
        meaning = await self._catalog.meaning(f"{intent.name}@{intent.alias}")
        return intent.digest in meaning.digests

    async def _ask(self, question: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: question(*arguments))
