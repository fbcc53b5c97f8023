"""Places in the engine's host memory: how many there are, who has one, and waiting for one to come free."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from loradeck_registry.errors import ExhaustedError


class Places:
    """At most `capacity` revisions, by digest. All methods run on one event loop."""

    def __init__(self, capacity: int, wait_seconds: float) -> None:
        self.capacity = capacity
        self._wait_seconds = wait_seconds
        self._taken: set[str] = set()
        self._news = asyncio.Event()
        """Set, and replaced, whenever something was released."""

    @property
    def used(self) -> int:
        """Places taken or reserved."""
        return len(self._taken)

    def take(self, digest: str) -> None:
        """Take a place, whether one is free or not. Idempotent."""
        self._taken.add(digest)

    def give_back(self, digest: str) -> None:
        """Free a place. Idempotent."""
        self._taken.discard(digest)
        self.notify()

    def clear(self) -> None:
        """Free every place."""
        self._taken.clear()
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits: something may be released now that could not be before."""
        self._news.set()
        self._news = asyncio.Event()

    async def changed(self) -> None:
        """Wait for the next release."""
        await self._news.wait()

    async def reserve(self, digest: str, what: str, make_room: Callable[[], Awaitable[None] | None]) -> None:
        """Take a place as soon as there is one. `make_room` gives what to wait for to have one freed, or None.

        Raises ExhaustedError (NO_HOST_ROOM) if every place is in use for too long.
        """
        deadline = time.monotonic() + self._wait_seconds
        while len(self._taken) >= self.capacity:
            if (leaving := make_room()) is not None:
                await leaving
                continue
            remaining = deadline - time.monotonic()
            try:
                if remaining <= 0:
                    raise TimeoutError
                async with asyncio.timeout(remaining):
                    await self.changed()
            except TimeoutError:
                raise ExhaustedError(
                    f"no room for {what}: all {self.capacity} places in host memory are in use",
                    reason="NO_HOST_ROOM",
                    retry_after=1.0,
                ) from None
        self._taken.add(digest)
