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
from loradeck_registry.registry import Registry
from loradeck_serve.catalog.catalog import Catalog
from loradeck_serve.catalog.meaning import Meaning
from loradeck_serve.catalog.swapper import Swapper
from loradeck_serve.domain import AdapterView, AliasFlip, Call, Capacity
from loradeck_serve.engine_handle import EngineHandle
from loradeck_serve.handlers.gate import Gate
from loradeck_serve.residency.entry import Entry
from loradeck_serve.residency.events import Events
from loradeck_serve.residency.manager import ResidencyManager


class AdaptersHandler:
    """Everything behind the admin door. What changes something raises UnavailableError while the server shuts down."""

    def __init__(
        self,
        registry: Registry | None,
        catalog: Catalog,
        residency: ResidencyManager,
        swapper: Swapper,
        events: Events,
        engine: EngineHandle,
        gate: Gate,
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
        self._gate = gate
        self._executor = executor
        self._bytes_per_rank = bytes_per_rank
        self._cache = cache

    def list(self, call: Call) -> list[AdapterView]:
        """Every revision known here that the caller may see, sorted by name and revision."""
        views = (self.view(e) for e in self._residency.entries if call.access.grants.may_use(e.revision.name))
        return sorted(views, key=lambda v: (v.name, v.revision))

    async def get(self, call: Call, reference: str) -> AdapterView:
        """The revision that a reference means now, of a weighted alias the one with the largest share.

        Raises NotFoundError.
        """
        return self._view_of(await self._meaning(call, reference))

    async def load(self, call: Call, reference: str) -> AdapterView:
        """Load now, all that the reference means. Raises what a load raises."""
        self._gate.check_staying()
        meaning = await self._meaning(call, reference)
        await self._swapper.load(meaning)
        return self._view_of(meaning)

    async def unload(self, call: Call, reference: str) -> AdapterView:
        """Take out after the last running request. Raises PreconditionError (PINNED)."""
        self._gate.check_staying()
        meaning = await self._meaning(call, reference)
        for digest in meaning.digests:
            await self._residency.unload(digest)
        return self._view_of(meaning)

    async def pin(self, call: Call, reference: str) -> AdapterView:
        """Load and never evict. Raises ExhaustedError (PINS_FULL) if no place would be left for others."""
        self._gate.check_staying()
        meaning = await self._meaning(call, reference)
        if len(self._catalog.pinned | meaning.digests) >= self._residency.capacity:
            raise ExhaustedError(
                f"{len(self._catalog.pinned)} of {self._residency.capacity} places are pinned, one must stay free: "
                "unpin another adapter, or raise host_adapters",
                reason="PINS_FULL",
            )
        await self._swapper.load(meaning)
        self._catalog.pin(reference, meaning)
        return self._told(meaning)

    async def unpin(self, call: Call, reference: str) -> AdapterView:
        """End every pin of what the reference means."""
        self._gate.check_staying()
        meaning = await self._meaning(call, reference)
        self._catalog.unpin(reference, meaning)
        return self._told(meaning)

    async def move_alias(
        self, call: Call, name: str, alias: str, target: str, expected: int | None, reason: str
    ) -> tuple[AdapterView, int]:
        """Load the target here, then write the registry, then flip. Returns view and previous revision (0: none).

        Raises what the load raises, before anything is written, and ConflictError (ALIAS_MOVED).
        """
        self._gate.check_staying()
        check_name(name)
        check_alias(alias)
        if not target:
            raise InvalidError("`target` is empty: give a revision number, an alias or a digest", field="target")
        call.requested = f"{name}@{alias}"
        call.access.check_adapter(name)
        call.adapter = name
        call.facts.update(target=target[:128], why=reason[:500])
        begin = time.monotonic()
        async with self._swapper.lock(name):
            reference = Reference.parse(target if "@" in target else f"{name}@{target}")
            if reference.name != name:
                raise InvalidError(
                    f"{target} is not a revision of {name}: an alias stays within its name", field="target"
                )
            asked = await self._catalog.read(reference)
            if asked.weighted:
                raise InvalidError(
                    f"{reference} is a weighted alias: name a revision; `registry alias` sets shares",
                    field="target",
                )
            revision = asked.main
            call.facts.update(digest=revision.digest, revision=revision.number)
            before = await self._current(name, alias)
            call.facts["previous_revision"] = before
            entry = await self._residency.ensure(revision)
            assert self._registry is not None
            registry, number = self._registry, str(revision.number)
            written = await asyncio.get_running_loop().run_in_executor(
                self._executor,
                lambda: registry.move_alias(name, alias, number, expect=expected, who=call.caller, why=reason),
            )
            meaning = Meaning((revision,), alias, written)
            here = [
                (pointer, meaning)
                for pointer in self._catalog.pointers({name})
                if pointer.reference.alias == alias or (pointer.reference.alias is None and alias == PROD)
            ]
            known = any(pointer.reference.alias == alias for pointer, _ in here)
            self._swapper.flip(here, begin)
            if not known:
                self._catalog.follow(Reference(name, alias=alias), meaning)
                self._events.flip(AliasFlip(name, alias, before, revision.number, time.time()))
        return self.view(entry), before

    def watch(self, call: Call, names: Sequence[str]) -> AsyncGenerator[AdapterView | AliasFlip]:
        """The present state, then every change, of `names` or all that the caller may see. Ends only when closed."""
        return self._watch(call, frozenset(names))

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

    async def _watch(self, call: Call, names: frozenset[str]) -> AsyncGenerator[AdapterView | AliasFlip]:
        async for event in self._events.watch(self.list(call)):
            if (not names or event.name in names) and call.access.grants.may_use(event.name):
                yield event

    def _view_of(self, meaning: Meaning) -> AdapterView:
        return self.view(self._residency.find(meaning.main.digest) or Entry(meaning.main))

    def _told(self, meaning: Meaning) -> AdapterView:
        """The view, after everybody who watches was told of all the revisions."""
        for revision in meaning.revisions:
            self._events.state(self.view(self._residency.find(revision.digest) or Entry(revision)))
        return self._view_of(meaning)

    async def _meaning(self, call: Call, reference: str) -> Meaning:
        if not reference:
            raise InvalidError("`adapter` is empty: name an adapter", reason="EMPTY_FIELD", field="adapter")
        call.requested = reference
        try:
            name = Reference.parse(reference).name
        except InvalidError as error:
            raise InvalidError(error.message, reason=error.reason, field="adapter") from None
        call.access.check_adapter(name)
        try:
            meaning = await self._catalog.meaning(reference)
        except NotFoundError as error:
            raise call.access.hide_others(error, name) from None
        call.adapter = meaning.main.name
        call.facts.update(digest=meaning.main.digest, revision=meaning.main.number)
        return meaning

    async def _current(self, name: str, alias: str) -> int:
        try:
            return (await self._catalog.read(Reference(name, alias=alias))).main.number
        except NotFoundError:
            return 0
