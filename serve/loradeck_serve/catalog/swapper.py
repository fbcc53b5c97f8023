"""The swapper: brings in what an alias will mean, flips to it in one step, and lets go what nobody means any more."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from weakref import WeakValueDictionary

from loradeck_registry.errors import LoradeckError
from loradeck_serve.catalog.catalog import Catalog, Pointer
from loradeck_serve.catalog.meaning import Meaning
from loradeck_serve.domain import AliasFlip
from loradeck_serve.residency.manager import ResidencyManager

_log = logging.getLogger(__name__)

LINGER_SECONDS = 1.0
"""How long a replaced revision stays: requests that came just before the flip are on their way to it, and would have to
load it again."""


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
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Each for as long as somebody holds it or waits for it."""
        self._leaving: set[asyncio.TimerHandle] = set()

    def lock(self, name: str) -> asyncio.Lock:
        """Serialises the moves of one adapter name on this server."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

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
            handle = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._let_go, digest, name)
            self._leaving = {old for old in self._leaving if old.when() > handle.when() - LINGER_SECONDS} | {handle}

    def close(self) -> None:
        """Let nothing go any more: the server stops."""
        for handle in self._leaving:
            handle.cancel()

    def _let_go(self, digest: str, name: str) -> None:
        if not any(digest in pointer.meaning.digests for pointer in self._catalog.pointers({name})):
            self._residency.retire(digest)
