"""What a soak does to a server, and what it asks of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SoakPlan:
    """Rates are requests per second. The defaults leave a server of two cores room to breathe, not to rest."""

    minutes: float = 30.0
    adapters: int = 16
    """The last one is flooded; the first `copied` are published anew, moved and unloaded all the time, and the
    `turned` after them are moved between revisions with different answers."""
    copied: int = 4
    turned: int = 4
    revisions: int = 3
    """Of each adapter that is turned."""
    slots: int = 4
    host_adapters: int = 12
    """Fewer than adapters: the server has to evict and load again all the time."""
    steady: float = 4.0
    """Of the caller that does nothing wrong: base and all adapters but the flooded one, in turn."""
    flood: float = 20.0
    """Offered by the caller that floods; the server is set to serve it `caller_limit` of them."""
    caller_limit: float = 6.0
    cancelled: float = 0.5
    expired: float = 0.5
    bad: float = 0.25
    churn_every: float = 3.0
    turn_every: float = 4.0
    prompts: int = 6
    prompt_tokens: int = 100
    tokens: int = 8
    """Of every reply but those that are cancelled or expire."""
    long_tokens: int = 64
    warm_up_share: float = 0.1
    """Of the minutes, and at least `warm_up_seconds`: load before the baseline of all comparisons."""
    warm_up_seconds: float = 20.0

    @property
    def seconds(self) -> float:
        """Of the measured load."""
        return self.minutes * 60

    @property
    def warm_up(self) -> float:
        """Seconds of load before it."""
        return max(self.warm_up_seconds, self.warm_up_share * self.seconds)


MOST_GROWTH = 0.02
"""Of the resident memory of the server and its engine, from the first third to the last."""
MOST_P99_RATIO = 1.2
"""Of the steady caller's 99th percentile in the last third to that in the first."""
