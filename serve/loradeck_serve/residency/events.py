"""Events of a server's adapters, for whoever watches: the newest state per revision, and every flip."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from loradeck_registry.errors import UnavailableError
from loradeck_serve.domain import AdapterView, AliasFlip

_MOST_FLIPS = 10_000
"""Flips kept for a watcher that does not read; then its stream ends."""


class _Subscriber:
    def __init__(self) -> None:
        self.states: dict[str, AdapterView] = {}
        self.flips: deque[AliasFlip] = deque()
        self.news = asyncio.Event()


class Events:
    """Hands events to any number of watchers. A slow watcher gets the newest state of each revision, not each step."""

    def __init__(self) -> None:
        self._subscribers: set[_Subscriber] = set()
        self._closed = False

    def state(self, view: AdapterView) -> None:
        """A revision's state changed."""
        for subscriber in self._subscribers:
            subscriber.states[view.digest] = view
            subscriber.news.set()

    def flip(self, flip: AliasFlip) -> None:
        """An alias flipped."""
        for subscriber in self._subscribers:
            if len(subscriber.flips) < _MOST_FLIPS:
                subscriber.flips.append(flip)
            subscriber.news.set()

    def close(self) -> None:
        """The server is stopping: end every watch with UnavailableError (DRAINING)."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.news.set()

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._subscribers)

    async def watch(self, present: list[AdapterView]) -> AsyncGenerator[AdapterView | AliasFlip]:
        """The `present` state, then changes from this call on, until closed."""
        subscriber = _Subscriber()
        self._subscribers.add(subscriber)
        try:
            for view in present:
                yield view
            while not self._closed:
                await subscriber.news.wait()
                subscriber.news.clear()
                states, subscriber.states = subscriber.states, {}
                for view in states.values():
                    yield view
                while subscriber.flips:
                    yield subscriber.flips.popleft()
            raise UnavailableError("the server is shutting down", reason="DRAINING", retry_after=1)
        finally:
            self._subscribers.discard(subscriber)
