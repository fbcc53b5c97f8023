"""One adapter revision on this server: its state, who uses it, and what is known of it."""

import asyncio
from dataclasses import dataclass
from enum import Enum

from loradeck_registry.errors import LoradeckError
from loradeck_registry.registry import Revision
from loradeck_serve.domain import AdapterStateName, AdapterView


class State(Enum):
    """What the server is doing with a revision."""

    CACHED = "cached"
    LOADING = "loading"
    LOADED = "loaded"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass
class Entry:
    """Mutable state, touched on the event loop only."""

    revision: Revision
    state: State = State.CACHED
    holds: int = 0
    """Requests that rely on it, from before its load until their end. Never taken out while this is not 0."""
    running: int = 0
    """Requests in the engine."""
    load: asyncio.Task[None] | None = None
    drain: asyncio.Task[None] | None = None
    failure: LoradeckError | None = None
    failure_time: float = 0.0
    """On the monotonic clock."""
    was_remote: bool = False
    """Whether the last load had to fetch files."""
    load_time: float = 0.0
    load_seconds: float = 0.0
    last_use_time: float = 0.0

    def view(self, aliases: tuple[str, ...], pinned: bool) -> AdapterView:
        """A snapshot for operators."""
        manifest = self.revision.manifest
        state: AdapterStateName = self.state.value
        return AdapterView(
            name=self.revision.name,
            revision=self.revision.number,
            digest=self.revision.digest,
            aliases=aliases,
            task=str((manifest.task or {}).get("kind", "")),
            rank=manifest.lora.rank if manifest.lora else 0,
            size_bytes=manifest.size,
            state=state,
            pinned=pinned,
            running_requests=self.running,
            load_time=self.load_time,
            load_seconds=self.load_seconds,
            error_reason=self.failure.reason if self.failure else "",
            last_use_time=self.last_use_time,
        )
