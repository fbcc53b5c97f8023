"""The operators' calls: what this server holds, loads, keeps, and which revision an alias means."""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from loradeck_registry.errors import ExhaustedError, InvalidError, NotFoundError
from loradeck_registry.reference import PROD, Reference, check_alias, check_name
from loradeck_registry.registry import Registry, Revision
from loradeck_serve.catalog import Catalog, Pointer
from loradeck_serve.domain import AdapterView, AliasFlip, Call, Capacity
from loradeck_serve.engine_handle import EngineHandle
from loradeck_serve.residency.entry import Entry
from loradeck_serve.residency.events import Events
from loradeck_serve.residency.manager import ResidencyManager
from loradeck_serve.watcher import Swapper


class AdaptersHandler:
    """Everything behind the admin door."""

    def __init__(
        self,
        registry: Registry | None,
        catalog: Catalog,
        residency: ResidencyManager,
        swapper: Swapper,
        events: Events,
        engine: EngineHandle,
        executor: Executor,
        bytes_per_rank: int,
        cache: Path,
    ) -> None:
        self._registry = registry
        self._catalog = catalog
        self._residency = residency
        self._swapper = swapper
        self._events = events
        self._engine = engine
        self._executor = executor
        self._bytes_per_rank = bytes_per_rank
        self._cache = cache

    def list(self) -> list[AdapterView]:
        """Every revision known here, sorted by name and revision."""
        return sorted((self.view(e) for e in self._residency.entries), key=lambda v: (v.name, v.revision))

    async def get(self, call: Call, reference: str) -> AdapterView:
        """The revision that a reference means now. Raises NotFoundError."""
        revision = await self._resolve(call, reference)
        return self.view(self._residency.find(revision.digest) or Entry(revision))

    async def load(self, call: Call, reference: str) -> AdapterView:
        """Load now. Raises what the load raises."""
        return self.view(await self._residency.ensure(await self._resolve(call, reference)))

    async def unload(self, call: Call, reference: str) -> AdapterView:
        """Take out after the last running request. Raises PreconditionError (PINNED)."""
        revision = await self._resolve(call, reference)
        await self._residency.unload(revision.digest)
        return self.view(self._residency.find(revision.digest) or Entry(revision))

    async def pin(self, call: Call, reference: str) -> AdapterView:
        """Load and never evict. Raises ExhaustedError (PINS_FULL) if no place would be left for others."""
        revision = await self._resolve(call, reference)
        if len(self._catalog.pinned | {revision.digest}) >= self._residency.capacity:
            raise ExhaustedError(
                f"{len(self._catalog.pinned)} of {self._residency.capacity} places are pinned, one must stay free: "
                "unpin another adapter, or raise host_adapters",
                reason="PINS_FULL",
            )
        entry = await self._residency.ensure(revision)
        self._catalog.pin(reference, revision)
        view = self.view(entry)
        self._events.state(view)
        return view

    async def unpin(self, call: Call, reference: str) -> AdapterView:
        """End every pin of the revision that the reference means."""
        revision = await self._resolve(call, reference)
        self._catalog.unpin(reference, revision.digest)
        view = self.view(self._residency.find(revision.digest) or Entry(revision))
        self._events.state(view)
        return view

    async def move_alias(
        self, call: Call, name: str, alias: str, target: str, expected: int | None, reason: str
    ) -> tuple[AdapterView, int]:
        """Load the target here, then write the registry, then flip. Returns view and previous revision (0: none).

        Raises what the load raises, before anything is written, and ConflictError (ALIAS_MOVED).
        """
        check_name(name)
        check_alias(alias)
        if not target:
            raise InvalidError("`target` is empty: give a revision number, an alias or a digest", field="target")
        call.adapter = name
        begin = time.monotonic()
        async with self._swapper.lock(name):
            reference = Reference.parse(target if "@" in target else f"{name}@{target}")
            if reference.name != name:
                raise InvalidError(
                    f"{target} is not a revision of {name}: an alias stays within its name", field="target"
                )
            revision, _ = await self._catalog.read(reference)
            before = await self._current(name, alias)
            entry = await self._residency.ensure(revision)
            assert self._registry is not None
            registry, number = self._registry, str(revision.number)
            await asyncio.get_running_loop().run_in_executor(
                self._executor,
                lambda: registry.move_alias(name, alias, number, expect=expected, who=call.caller, why=reason),
            )
            moves: list[tuple[Pointer, Revision, str]] = []
            for pointer in self._catalog.pointers({name}):
                is_bare = pointer.reference.alias is None and alias == PROD
                if pointer.reference.alias == alias or is_bare:
                    moves.append((pointer, revision, alias))
            known = any(p.reference.alias == alias for p, _, _ in moves)
            self._swapper.flip(moves, begin)
            if not known:
                self._catalog.follow(Reference(name, alias=alias), revision)
                self._events.flip(AliasFlip(name, alias, before, revision.number, time.time()))
        return self.view(entry), before

    def watch(self, names: Sequence[str]) -> AsyncGenerator[AdapterView | AliasFlip]:
        """The present state, then every change, of `names` or all. Ends only when closed."""
        return self._watch(frozenset(names))

    def capacity(self, rank: int) -> Capacity:
        """How many adapters of `rank` (0: the largest) fit. Raises InvalidError for a rank over the server's."""
        info = self._engine.info
        if not 0 <= rank <= max(info.max_rank, 0):
            raise InvalidError(
                f"`rank` is {rank}: this server takes at most {info.max_rank}", reason="OUT_OF_RANGE", field="rank"
            )
        size = self._bytes_per_rank * (rank or info.max_rank)
        folder = self._cache
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        return Capacity(
            slots=info.slots,
            slots_used=self._residency.slots.used,
            host_adapters=self._residency.capacity,
            host_adapters_used=self._residency.used,
            max_rank=info.max_rank,
            adapter_size_bytes=size,
            cache_free_bytes=free,
            cache_adapters=free // size if size else 0,
        )

    def view(self, entry: Entry) -> AdapterView:
        """A revision as operators see it."""
        digest = entry.revision.digest
        view = entry.view(self._catalog.aliases_of(digest), digest in self._catalog.pinned)
        if view.state == "cached" and (self._registry is None or not self._registry.is_local(entry.revision)):
            return replace(view, state="remote")
        return view

    async def _watch(self, names: frozenset[str]) -> AsyncGenerator[AdapterView | AliasFlip]:
        async for event in self._events.watch(self.list()):
            if not names or event.name in names:
                yield event

    async def _resolve(self, call: Call, reference: str) -> Revision:
        if not reference:
            raise InvalidError("`adapter` is empty: name an adapter", reason="EMPTY_FIELD", field="adapter")
        try:
            revision = await self._catalog.resolve(reference)
        except InvalidError as error:
            raise InvalidError(error.message, reason=error.reason, field="adapter") from None
        call.adapter = revision.name
        return revision

    async def _current(self, name: str, alias: str) -> int:
        try:
            revision, _ = await self._catalog.read(Reference(name, alias=alias))
        except NotFoundError:
            return 0
        return revision.number
