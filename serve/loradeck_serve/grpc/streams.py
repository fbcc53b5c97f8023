"""The writing side of a call, with a bound on how long its caller may leave everything unread."""

import asyncio
from collections.abc import Callable
from typing import Any

from loradeck_registry.errors import ExhaustedError, LoradeckError
from loradeck_serve.grpc.operations import begun

FIRST_SECONDS = 1.0
"""How long a stream that has been cut may still take to send its first message."""


class SlowReaderError(ExhaustedError):
    """The caller read nothing for too long, so its stream was cut."""

    reason = "SLOW_READER"


class NothingSentError(Exception):
    """Not even the stream's first message has been taken, so gRPC takes no status either: not before `first` ends."""

    def __init__(self, first: asyncio.Future[Any]) -> None:
        super().__init__("the first message has not been sent")
        self.first = first


class BoundedWriter:
    """Stands for the context that servicers write to. `cut` is called once if a write stands still for `seconds`.

    One timer per stream, not per message: a write costs two assignments more than without it.

    The first write carries the headers. If it is cancelled, grpc.aio takes them for unsent, sends them again with the
    call's status, which is an error, so the caller gets no status and what belongs to it is never freed. So it runs to
    its end, and `close` waits for it.
    """

    def __init__(
        self, context: Any, serialize: Callable[[Any], bytes], seconds: float, cut: Callable[[LoradeckError], None]
    ) -> None:
        self._context = context
        self._serialize = serialize
        self._seconds = seconds
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._since = 0.0
        """When the present write began; 0 between writes."""
        self._timer = self._loop.call_later(seconds, self._look)
        self._first: asyncio.Future[Any] | None = None

    async def write(self, message: Any) -> None:
        """Send a message; returns when gRPC has taken it, which it does as the caller reads."""
        self._since = self._loop.time()
        writing = self._context.write(self._serialize(message))
        if self._first is None:
            self._first = begun(writing)
            await asyncio.shield(self._first)
        else:
            await writing
        self._since = 0.0

    async def close(self) -> None:
        """Stop to look. Raises NothingSentError if no status can be sent."""
        self._timer.cancel()
        first = self._first
        if first is None:
            return
        try:
            if not first.done():
                await asyncio.wait((first,), timeout=FIRST_SECONDS)
        finally:
            # Also if this wait is cancelled: whatever comes, a status now would be an error.
            if not first.done() or first.cancelled() or first.exception() is not None:
                raise NothingSentError(first) from None

    def _look(self) -> None:
        now = self._loop.time()
        ends = (self._since or now) + self._seconds
        if now >= ends:
            self._cut(SlowReaderError(f"nothing was read for {self._seconds:g} s: read the stream, or cancel it"))
            return
        self._timer = self._loop.call_at(ends, self._look)
