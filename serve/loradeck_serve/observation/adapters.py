"""What happens to adapters, told to metrics and to whoever watches."""

from collections.abc import Callable

from loradeck_serve.domain import AdapterView, AliasFlip, Residency
from loradeck_serve.observation.metrics import Metrics
from loradeck_serve.residency.entry import Entry
from loradeck_serve.residency.events import Events


class AdapterObserver:
    """Implements the residency manager's Observer, and receives flips."""

    def __init__(self, metrics: Metrics, events: Events, view: Callable[[Entry], AdapterView]) -> None:
        self._metrics = metrics
        self._events = events
        self._view = view

    def changed(self, entry: Entry) -> None:
        """A state changed."""
        if self._events.watched:
            self._events.state(self._view(entry))

    def loaded(self, entry: Entry, tier: Residency, seconds: float) -> None:
        """A load ended well: the engine gives the adapter a slot as well."""
        self._metrics.swaps.labels(self._label(entry)).inc()
        self._metrics.load_seconds.labels(self._label(entry), tier.value).observe(seconds)

    def refused(self, entry: Entry, reason: str) -> None:
        """A load ended with an error."""
        self._metrics.load_failures.labels(self._label(entry), reason).inc()

    def evicted(self, entry: Entry) -> None:
        """A revision made way for another one."""
        self._metrics.evictions.labels(self._label(entry)).inc()

    def _label(self, entry: Entry) -> str:
        return self._metrics.label(entry.revision.name)

    def flipped(self, flip: AliasFlip, seconds: float) -> None:
        """An alias flipped, `seconds` after the move was noticed."""
        self._metrics.flips.labels(self._metrics.label(flip.name)).inc()
        self._metrics.flip_seconds.observe(seconds)
        self._events.flip(flip)

    def flip_failed(self, name: str, reason: str) -> None:
        """A move could not be followed."""
        self._metrics.flip_failures.labels(self._metrics.label(name), reason).inc()
