"""Token buckets: so many per second, with a burst."""

import math
from collections import OrderedDict

_REMEMBERED = 4096
"""Buckets kept; the least recently used goes first, and it is full by then."""


class Bucket:
    """One bucket, full at first. What is taken beyond its level is owed, and waited for."""

    def __init__(self, rate: float = 0.0, burst: float = 1.0) -> None:
        self._rate = rate
        self._burst = burst
        self._level = math.inf
        self._since = -math.inf

    def set(self, rate: float, burst: float) -> None:
        """Change rate (per second) and burst; the level stays, as far as it fits."""
        self._rate, self._burst = rate, burst

    def wait(self, now: float, amount: float = 1.0) -> float:
        """Seconds until `amount` is there; 0 if it is."""
        missing = amount - self._now(now)
        # What rounding leaves of a token must not become one more wait of no length.
        return missing / self._rate if missing > 1e-9 else 0.0

    def take(self, now: float, amount: float = 1.0) -> None:
        """Take `amount`, there or not."""
        self._level = self._now(now) - amount
        self._since = now

    def _now(self, now: float) -> float:
        if self._level == math.inf:
            return self._burst
        return min(self._burst, self._level + (now - self._since) * self._rate)


class Rates:
    """One bucket per key, all of the same rate and with a burst of one second. A rate of 0 limits nothing."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def set(self, per_second: float) -> None:
        """Change the rate of all."""
        if per_second != self._rate:
            self._rate = per_second
            for bucket in self._buckets.values():
                bucket.set(per_second, max(per_second, 1.0))

    def wait(self, key: str, now: float, amount: float = 1.0) -> float:
        """Seconds until `key` may go on `amount` times; 0 if it may now."""
        if not self._rate:
            return 0.0
        if (bucket := self._buckets.get(key)) is None:
            bucket = Bucket(self._rate, max(self._rate, 1.0))
        return bucket.wait(now, amount)

    def take(self, key: str, now: float) -> None:
        """`key` goes on now."""
        if not self._rate:
            return
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._rate, max(self._rate, 1.0))
        bucket.take(now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
