"""What the residency manager works with: a loader, an observer, and the leases it gives out."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from loradeck_registry.registry import Revision
from loradeck_serve.domain import Residency
from loradeck_serve.residency.entry import Entry, State
from loradeck_serve.residency.slots import SlotOrder


class Loader(Protocol):
    """Brings a revision's files here, and into the engine and out of it."""

    def is_local(self, revision: Revision) -> bool:
        """Whether the files are in the local cache."""

    async def prepare(self, revision: Revision) -> None:
        """Fetch, verify and check. Raises LoradeckError if the revision cannot be served here."""

    async def insert(self, revision: Revision) -> None:
        """Load a prepared revision into the engine and prove it. Leaves no trace if it raises."""

    async def remove(self, revision: Revision) -> None:
        """Take it out of the engine."""

    def released(self, revision: Revision) -> None:
        """It is neither loaded nor being loaded any more."""


class Observer(Protocol):
    """Is told what happens, for metrics and watchers."""

    def changed(self, entry: Entry) -> None:
        """A state changed."""

    def loaded(self, entry: Entry, tier: Residency, seconds: float) -> None:
        """A load ended well."""

    def refused(self, entry: Entry, reason: str) -> None:
        """A load ended with an error."""

    def evicted(self, entry: Entry) -> None:
        """A revision made way for another one."""


class Needs(Protocol):
    """Says what should stay, beside what requests hold."""

    @property
    def pinned(self) -> Collection[str]:
        """Digests that are never taken out."""

    def shared_use(self) -> Mapping[str, float]:
        """When revisions that share an alias were last asked for through it, whichever of them answered.

        By digest, in seconds since the epoch: they grow old together.
        """


@dataclass
class Lease:
    """A revision that stays in the engine for as long as the lease is held."""

    entry: Entry
    slots: SlotOrder
    residency: Residency
    load_seconds: float = 0.0
    _running: bool = field(default=False)

    @property
    def valid(self) -> bool:
        """Whether the revision is still in the engine: it is, unless the engine died."""
        return self.entry.state in (State.LOADED, State.DRAINING)

    def dispatched(self) -> bool:
        """The request goes to the engine now. Returns whether its adapter comes into a slot that it was not in."""
        self._running = True
        self.entry.running += 1
        was_in_slot = self.slots.touch(self.entry.revision.digest)
        if not was_in_slot and self.residency is Residency.HOT:
            self.residency = Residency.WARM
        return not was_in_slot

    def end(self) -> None:
        """The request has left the engine."""
        if self._running:
            self._running = False
            self.entry.running -= 1
        self.entry.last_use_time = time.time()
