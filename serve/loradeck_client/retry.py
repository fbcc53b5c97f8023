"""When a call is tried again: UNAVAILABLE, and RESOURCE_EXHAUSTED only if the server says when to come back."""

import random
import time
from dataclasses import dataclass

from loradeck_registry.errors import ExhaustedError, LoradeckError, UnavailableError


@dataclass(frozen=True)
class RetryPolicy:
    """Waits grow from `first_seconds` by `factor` up to `longest_seconds`, with jitter; a server's own wish rules."""

    attempts: int = 4
    """All tries together; 1 never retries. A try goes over all addresses until one of them is not away."""
    first_seconds: float = 0.1
    factor: float = 2.0
    longest_seconds: float = 5.0

    def wait(self, error: LoradeckError, attempt: int, deadline: float) -> float | None:
        """Seconds to wait after failed try `attempt` (from 1), or None to give up. `deadline` is monotonic."""
        exhausted = isinstance(error, ExhaustedError) and error.retry_after is not None
        if attempt >= self.attempts or not (exhausted or isinstance(error, UnavailableError)):
            return None
        wait = error.retry_after
        if wait is None:
            wait = min(self.first_seconds * self.factor ** (attempt - 1), self.longest_seconds)
        wait *= random.uniform(1.0, 1.25)
        return wait if time.monotonic() + wait < deadline else None
