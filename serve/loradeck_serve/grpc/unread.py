"""Replies that nobody reads: gRPC keeps each of them, and its call, until the caller cancels or the connection ends.

grpc.aio (1.85.1) has no way to end such a call from here: its status waits behind the message that the caller's window
does not take. One of them holds some 30 KiB. So they are counted, by caller, and a caller with many of them makes no
new ones.
"""

import time
from collections.abc import Callable
from itertools import islice

from loradeck_registry.errors import ExhaustedError

MOST = 64
"""Replies of one caller that may be unread for longer than a stream may stand still."""


class Kept(str):
    """A value of a call's trailing metadata, which gRPC keeps for exactly as long as it keeps the call."""

    __slots__ = ("_held",)
    _held: dict[int, float] | None

    def ended(self, held: dict[int, float], now: float) -> None:
        """The call has ended here: `held` has it until it is gone from gRPC too."""
        self._held = held
        held[id(self)] = now

    def __del__(self) -> None:
        held = getattr(self, "_held", None)
        if held is not None:
            held.pop(id(self), None)


class Unread:
    """Of one door. What it costs a call is two look-ups in dictionaries and an entry that comes and goes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, dict[int, float]] = {}

    def check(self, who: str, seconds: float) -> None:
        """Raise ExhaustedError (UNREAD_REPLIES) if `who` leaves too many replies unread for longer than `seconds`."""
        held = self._held.get(who)
        if held is None or len(held) < MOST:
            return
        # In order of time: the one that makes it too many.
        since = next(islice(held.values(), MOST - 1, None), None)
        if since is not None and self._clock() - since > seconds:
            raise ExhaustedError(
                f"{MOST} replies to {who} are unread for more than {seconds:g} s: read them, cancel their calls, or "
                "close the connection",
                reason="UNREAD_REPLIES",
                retry_after=seconds,
            )

    def ended(self, who: str, kept: Kept) -> None:
        """A call of `who` has ended, and gRPC has its reply. `kept` is in its trailing metadata."""
        held = self._held.get(who)
        if held is None:
            self._forget()
            held = self._held[who] = {}
        kept.ended(held, self._clock())

    def _forget(self) -> None:
        """Callers without such replies are forgotten whenever there are many."""
        if len(self._held) >= 1024:
            self._held = {who: held for who, held in self._held.items() if held}
