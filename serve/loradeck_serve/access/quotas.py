"""What a caller may take per second, per minute and at once. A little more waits; much more is refused."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from loradeck_registry.errors import ExhaustedError
from loradeck_serve.access.identity import Identity
from loradeck_serve.admission.rates import Bucket
from loradeck_serve.config import Limits
from loradeck_serve.live import Live

_REMEMBERED = 4096
"""Callers kept; the least recently used goes first, if it has no call."""


@dataclass
class _Usage:
    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Quotas:
    """Counts per caller. All methods run on one event loop. Callers without limits cost nothing and are not counted."""

    def __init__(self, limits: Live[Limits], clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._usage: OrderedDict[str, _Usage] = OrderedDict()

    @asynccontextmanager
    async def call(self, identity: Identity) -> AsyncIterator[None]:
        """One call of this caller, from its turn to its end.

        Raises ExhaustedError (RATE_LIMITED, CONCURRENCY_LIMITED) with the time to come back.
        """
        grants = identity.grants
        if not (grants.requests_per_second or grants.concurrent):
            yield
            return
        usage = self._of(identity.name)
        if grants.requests_per_second:
            await self._turn(usage.requests, grants.requests_per_second, identity.name)
        if not grants.concurrent:
            yield
            return
        await self._enter(usage, grants.concurrent, identity.name)
        try:
            yield
        finally:
            self._leave(usage)

    async def tokens(self, identity: Identity, prompt: int) -> None:
        """Take the tokens of a prompt. Raises ExhaustedError (TOKENS_LIMITED) if the minute's are used up."""
        per_minute = identity.grants.tokens_per_minute
        if not per_minute:
            return
        bucket = self._of(identity.name).tokens
        bucket.set(per_minute / 60, per_minute)
        # A prompt larger than a minute's worth goes when nothing of the minute is used, and is paid for afterwards.
        wait = bucket.wait(self._clock(), min(prompt, per_minute))
        if wait > self._limits.now.quota_wait_seconds:
            raise ExhaustedError(
                f"{identity.name} has used up its {per_minute} tokens per minute: retry in {wait:.1f} s",
                reason="TOKENS_LIMITED",
                retry_after=wait,
            )
        bucket.take(self._clock(), prompt)
        if wait:
            await asyncio.sleep(wait)

    def charge(self, identity: Identity, output: int) -> None:
        """Count generated tokens; what is over the limit is paid for by the next requests."""
        if per_minute := identity.grants.tokens_per_minute:
            bucket = self._of(identity.name).tokens
            bucket.set(per_minute / 60, per_minute)
            bucket.take(self._clock(), output)

    async def _turn(self, bucket: Bucket, rate: float, name: str) -> None:
        bucket.set(rate, max(rate, 1.0))
        wait = bucket.wait(self._clock(), 1.0)
        if wait > self._limits.now.quota_wait_seconds:
            raise ExhaustedError(
                f"{name} may send {rate:g} requests per second: retry in {wait:.1f} s",
                reason="RATE_LIMITED",
                retry_after=wait,
            )
        # Taken before the wait: who comes next waits behind it.
        bucket.take(self._clock(), 1.0)
        if wait:
            await asyncio.sleep(wait)

    async def _enter(self, usage: _Usage, most: int, name: str) -> None:
        if usage.running < most:
            usage.running += 1
            return
        patience = self._limits.now.quota_wait_seconds
        if len(usage.waiting) < most and patience:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            usage.waiting.append(turn)
            try:
                async with asyncio.timeout(patience):
                    await turn
                return
            except TimeoutError:
                if _given(turn):
                    return
            except asyncio.CancelledError:
                if _given(turn):
                    self._leave(usage)
                raise
            finally:
                if turn in usage.waiting:
                    usage.waiting.remove(turn)
        raise ExhaustedError(
            f"{name} may have {most} calls at once: retry when one of them has ended",
            reason="CONCURRENCY_LIMITED",
            retry_after=max(patience, 0.1),
        )

    @staticmethod
    def _leave(usage: _Usage) -> None:
        while usage.waiting:
            turn = usage.waiting.popleft()
            if not turn.done():
                # The place passes on; the count stays.
                turn.set_result(None)
                return
        usage.running -= 1

    def _of(self, name: str) -> _Usage:
        usage = self._usage.get(name)
        if usage is None:
            usage = self._usage[name] = _Usage()
            while len(self._usage) > _REMEMBERED:
                oldest = next(iter(self._usage))
                if self._usage[oldest].running:
                    self._usage.move_to_end(oldest)
                    break
                del self._usage[oldest]
        self._usage.move_to_end(name)
        return usage


def _given(turn: asyncio.Future[None]) -> bool:
    """Whether the turn came, if only in the same moment as the end of the wait."""
    return turn.done() and not turn.cancelled()
