"""The residency manager: one load per revision however many wait, and eviction that never takes a revision in use."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager, suppress

from loradeck_registry.errors import ExhaustedError, LoradeckError, PreconditionError, UnavailableError
from loradeck_registry.registry import Revision
from loradeck_serve.domain import Residency
from loradeck_serve.residency.choosing import forgettable, least_needed
from loradeck_serve.residency.contract import Lease, Loader, Needs, Observer
from loradeck_serve.residency.entry import Entry, State
from loradeck_serve.residency.places import Places
from loradeck_serve.residency.slots import SlotOrder

_log = logging.getLogger(__name__)

FAILURE_SECONDS = 10.0
"""How long a refused revision is refused again without a new attempt."""
_KNOWN = 4096
"""Revisions remembered; those neither loaded nor in use go first."""


class ResidencyManager:
    """Keeps at most `capacity` revisions in the engine. All methods run on one event loop."""

    def __init__(
        self,
        loader: Loader,
        capacity: int,
        slots: int,
        load_wait_seconds: float,
        needs: Needs,
        observer: Observer,
    ) -> None:
        self._loader = loader
        self._places = Places(capacity, load_wait_seconds)
        self.slots = SlotOrder(slots)
        self._needs = needs
        self._observer = observer
        self._entries: dict[str, Entry] = {}
        self._background: set[asyncio.Task[None]] = set()

    @property
    def capacity(self) -> int:
        """Places in the engine's host memory."""
        return self._places.capacity

    @property
    def entries(self) -> list[Entry]:
        """All revisions known here."""
        return list(self._entries.values())

    @property
    def used(self) -> int:
        """Places taken in the engine's host memory."""
        return self._places.used

    @property
    def needed(self) -> set[str]:
        """Digests that are loaded, being loaded, or leaving."""
        states = (State.LOADING, State.LOADED, State.DRAINING)
        return {digest for digest, entry in self._entries.items() if entry.state in states}

    def find(self, digest: str) -> Entry | None:
        """The entry of a revision, if it is known here."""
        return self._entries.get(digest)

    def entry(self, revision: Revision) -> Entry:
        """The entry of a revision, made if new."""
        entry = self._entries.get(revision.digest)
        if entry is None:
            self._forget_some()
            entry = self._entries[revision.digest] = Entry(revision)
        return entry

    @asynccontextmanager
    async def use(self, revision: Revision) -> AsyncIterator[Lease]:
        """Load if need be, and hold the revision in the engine meanwhile.

        Raises what the load raises, and ExhaustedError (NO_HOST_ROOM) if every place is in use for too long.
        """
        entry = self.entry(revision)
        while entry.drain is not None:
            await asyncio.wait([entry.drain])
            entry = self.entry(revision)
        entry.holds += 1
        try:
            begin = time.monotonic()
            residency = await self._present(entry, patient=False)
            waited = 0.0 if residency is Residency.HOT else time.monotonic() - begin
            lease = Lease(entry, self.slots, residency, waited)
            try:
                yield lease
            finally:
                lease.end()
        finally:
            self._release(entry)

    async def ensure(self, revision: Revision) -> Entry:
        """Load a revision now, trying again even if it was refused a moment ago. Raises as `use` does."""
        entry = self.entry(revision)
        while entry.drain is not None:
            await asyncio.wait([entry.drain])
            entry = self.entry(revision)
        entry.holds += 1
        try:
            await self._present(entry, patient=True)
        finally:
            self._release(entry)
        return entry

    def prefetch(self, revisions: Iterable[Revision]) -> None:
        """Begin to load revisions that will be needed; a load that fails is logged, and tried again when it is."""
        for revision in revisions:
            task = asyncio.create_task(self._fetch(revision), name=f"prefetch {revision.digest}")
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def unload(self, digest: str) -> None:
        """Take a revision out once its requests have ended; new ones meanwhile wait and load it anew. Idempotent."""
        entry = self._entries.get(digest)
        if entry is None:
            return
        if digest in self._needs.pinned:
            raise PreconditionError(
                f"{entry.revision.name}@{entry.revision.number} is pinned: unpin it first", reason="PINNED"
            )
        if entry.load is not None:
            await asyncio.wait([entry.load])
        if task := self._drain(entry):
            await asyncio.shield(task)

    def retire(self, digest: str) -> None:
        """The revision is superseded: let it go when its last request ends, in the background."""
        entry = self._entries.get(digest)
        if entry is not None and digest not in self._needs.pinned:
            self._drain(entry)

    def engine_lost(self) -> list[Revision]:
        """The engine is gone with all it held. Returns what was loaded."""
        lost = [e.revision for e in self._entries.values() if e.state in (State.LOADED, State.DRAINING)]
        self._places.clear()
        self.slots.clear()
        for entry in self._entries.values():
            if entry.state in (State.LOADED, State.DRAINING):
                self._set(entry, State.CACHED)
        return lost

    async def close(self) -> None:
        """End background work."""
        loads = [t for e in self._entries.values() for t in (e.load, e.drain) if t is not None]
        tasks = [*self._background, *loads]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, revision: Revision) -> None:
        # `_load` has logged it.
        with suppress(LoradeckError):
            await self.ensure(revision)

    async def _present(self, entry: Entry, patient: bool) -> Residency:
        if entry.state in (State.LOADED, State.DRAINING):
            return Residency.HOT
        if entry.load is None:
            if (
                not patient
                and isinstance(entry.failure, PreconditionError)
                and time.monotonic() - entry.failure_time < FAILURE_SECONDS
            ):
                # Without the tracebacks of those who were told before, which would grow with each.
                raise entry.failure.with_traceback(None)
            entry.load = asyncio.create_task(self._load(entry), name=f"load {entry.revision.digest}")
            entry.load.add_done_callback(_seen)
        await asyncio.shield(entry.load)
        return Residency.REMOTE if entry.was_remote else Residency.COLD

    async def _load(self, entry: Entry) -> None:
        revision = entry.revision
        begin = time.monotonic()
        entry.was_remote = not self._loader.is_local(revision)
        self._set(entry, State.LOADING)
        reserved = False
        try:
            await self._loader.prepare(revision)
            await self._places.reserve(revision.digest, str(revision), self._evict)
            reserved = True
            await self._loader.insert(revision)
            # Again: an engine that died meanwhile took the reservation with it, and the new one holds the revision.
            self._places.take(revision.digest)
        except BaseException as error:
            if reserved:
                self._places.give_back(revision.digest)
            entry.load = None
            # Want of room is no state of the revision: its files are here and whole.
            no_room = isinstance(error, ExhaustedError)
            if isinstance(error, LoradeckError):
                entry.failure, entry.failure_time = None if no_room else error, time.monotonic()
                self._observer.refused(entry, error.reason)
                _log.warning(
                    "load refused",
                    extra={
                        "adapter": revision.name,
                        "revision": revision.number,
                        "digest": revision.digest,
                        "reason": error.reason,
                        "error": error.message,
                    },
                )
            self._set(entry, State.FAILED if isinstance(error, Exception) and not no_room else State.CACHED)
            self._loader.released(revision)
            raise
        entry.load = None
        entry.failure = None
        entry.load_time = time.time()
        entry.load_seconds = time.monotonic() - begin
        self.slots.touch(revision.digest)
        self._set(entry, State.LOADED)
        # Whoever asked for it may have gone: then it is one more that can make way.
        self._places.notify()
        tier = Residency.REMOTE if entry.was_remote else Residency.COLD
        self._observer.loaded(entry, tier, entry.load_seconds)
        _log.info(
            "loaded",
            extra={
                "adapter": revision.name,
                "revision": revision.number,
                "digest": revision.digest,
                "tier": tier.value,
                "seconds": round(entry.load_seconds, 4),
            },
        )

    def _evict(self) -> Awaitable[None] | None:
        """Begin to let the least recently used revision go that nobody needs; None if all are needed."""
        victim = least_needed(self._entries.values(), self._needs.pinned, self._needs.shared_use())
        if victim is None:
            return None
        self._observer.evicted(victim)
        leaving = self._drain(victim)
        assert leaving is not None
        return asyncio.shield(leaving)

    def _drain(self, entry: Entry) -> asyncio.Task[None] | None:
        """Start to let a revision go, or join that. None if it is not in the engine."""
        if entry.drain is None and entry.state is State.LOADED:
            self._set(entry, State.DRAINING)
            entry.drain = asyncio.create_task(self._leave(entry), name=f"drain {entry.revision.digest}")
            entry.drain.add_done_callback(_seen)
        return entry.drain

    async def _leave(self, entry: Entry) -> None:
        try:
            while entry.holds:
                await self._places.changed()
            if entry.state is State.DRAINING:
                try:
                    await self._loader.remove(entry.revision)
                except UnavailableError:
                    _log.info("unloaded with the engine", extra={"digest": entry.revision.digest})
                self._places.give_back(entry.revision.digest)
                self.slots.remove(entry.revision.digest)
                self._set(entry, State.CACHED)
                self._loader.released(entry.revision)
        finally:
            entry.drain = None
            self._places.notify()

    def _release(self, entry: Entry) -> None:
        entry.holds -= 1
        if not entry.holds:
            self._places.notify()

    def _set(self, entry: Entry, state: State) -> None:
        if entry.state is not state:
            entry.state = state
            self._observer.changed(entry)

    def _forget_some(self) -> None:
        if len(self._entries) >= _KNOWN:
            for entry in forgettable(self._entries.values(), _KNOWN // 4):
                del self._entries[entry.revision.digest]


def _seen(task: asyncio.Task[None]) -> None:
    """A load whose waiters have all gone has nobody else to look at its error; `_load` has logged it."""
    if not task.cancelled():
        task.exception()
