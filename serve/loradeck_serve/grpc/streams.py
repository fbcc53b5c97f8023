"""The writing side of a call, with a bound on how long its caller may leave everything unread."""

import asyncio
from collections.abc import Callable
from typing import Any

from loradeck_registry.errors import ExhaustedError, LoradeckError


class SlowReaderError(ExhaustedError):
    """The caller read nothing for too long, so its stream was cut."""

    reason = "SLOW_READER"


class BoundedWriter:
    """Stands for the context that servicers write to. `cut` is called once if a write stands still for `seconds`.

    One timer per stream, not per message: a write costs two assignments more than without it.
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

    async def write(self, message: Any) -> None:
        """Send a message; returns when gRPC has taken it, which it does as the caller reads."""
        self._since = self._loop.time()
        await self._context.write(self._serialize(message))
        self._since = 0.0

    def close(self) -> None:
        """Stop to look."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        ends = (self._since or now) + self._seconds
        if now >= ends:
            self._cut(SlowReaderError(f"nothing was read for {self._seconds:g} s: read the stream, or cancel it"))
            return
        self._timer = self._loop.call_at(ends, self._look)
