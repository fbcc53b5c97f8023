"""Token buckets: so many per second, with a burst of one second's worth."""

import math
from collections import OrderedDict

_REMEMBERED = 4096
"""Buckets kept; the least recently used goes first, and it is full by then."""


class Rates:
    """One bucket per key, all of the same rate. A rate of 0 limits nothing."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self._burst = max(per_second, 1.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens left, and when that was so."""

    def wait(self, key: str, now: float) -> float:
        """Seconds until `key` may go on; 0 if it may now."""
        if not self._rate:
            return 0.0
        missing = 1.0 - self._level(key, now)
        # What rounding leaves of a token must not become one more wait of no length.
        return missing / self._rate if missing > 1e-9 else 0.0

    def take(self, key: str, now: float) -> None:
        """`key` goes on now."""
        if not self._rate:
            return
        self._buckets[key] = (self._level(key, now) - 1.0, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)

    def _level(self, key: str, now: float) -> float:
        tokens, since = self._buckets.get(key, (self._burst, -math.inf))
        return min(self._burst, tokens + (now - since) * self._rate)
