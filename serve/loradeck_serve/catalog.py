"""The catalog: what each reference means on this server now. Revisions are remembered, aliases are followed."""

import asyncio
import time
from collections.abc import Collection
from concurrent.futures import Executor
from dataclasses import dataclass, field

from loradeck_registry.errors import NotFoundError, UnimplementedError
from loradeck_registry.reference import LATEST, PROD, Reference
from loradeck_registry.registry import Registry, Revision
from loradeck_serve.domain import AliasFlip

_REMEMBERED = 4096
IDLE_SECONDS = 3600.0
"""An alias that nobody has used for this long is no longer followed; its next use reads the registry."""


@dataclass
class Pointer:
    """A movable reference and the revision it means here. `label` is the alias behind a bare name."""

    reference: Reference
    revision: Revision
    label: str
    last_use: float = field(default_factory=time.monotonic)


class Catalog:
    """References to revisions, in memory. All methods run on one event loop; the registry is read in `executor`."""

    def __init__(self, registry: Registry | None, executor: Executor) -> None:
        self._registry = registry
        self._executor = executor
        self._pointers: dict[Reference, Pointer] = {}
        self._fixed: dict[Reference, Revision] = {}
        self._lookups: dict[Reference, asyncio.Task[Revision]] = {}
        self._pins: dict[Reference, str] = {}
        self._pinned: frozenset[str] = frozenset()

    async def resolve(self, text: str) -> Revision:
        """The revision that a reference means on this server now.

        Memory answers for what is known. Raises InvalidError for a malformed reference, NotFoundError for an unknown
        one, UnavailableError if the registry must be asked and cannot be reached.
        """
        reference = Reference.parse(text)
        if pointer := self._pointers.get(reference):
            pointer.last_use = time.monotonic()
            return pointer.revision
        if revision := self._fixed.get(reference):
            return revision
        lookup = self._lookups.get(reference)
        if lookup is None:
            lookup = self._lookups[reference] = asyncio.create_task(self._look_up(reference))
            lookup.add_done_callback(lambda _: self._lookups.pop(reference, None))
        return await asyncio.shield(lookup)

    async def read(self, reference: Reference) -> tuple[Revision, str]:
        """What the registry says now, past the memory, and the alias behind a bare name. Raises as `resolve` does."""
        if self._registry is None:
            raise NotFoundError(
                f"this server was started without a registry and serves its base alone: no adapter {reference.name!r}",
                reason="NO_REGISTRY",
            )
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, reference)

    def pointers(self, names: Collection[str] | None = None) -> list[Pointer]:
        """The movable references followed here, of `names` or all."""
        return [p for p in self._pointers.values() if names is None or p.reference.name in names]

    def flip(self, pointer: Pointer, revision: Revision, label: str) -> AliasFlip:
        """Let a followed reference mean another revision, from this call on."""
        previous, pointer.revision, pointer.label = pointer.revision, revision, label
        if pointer.reference in self._pins:
            self._pins[pointer.reference] = revision.digest
            self._pinned = frozenset(self._pins.values())
        return AliasFlip(pointer.reference.name, label, previous.number, revision.number, time.time())

    def follow(self, reference: Reference, revision: Revision) -> Pointer:
        """Follow a movable reference from now on, meaning `revision`."""
        pointer = self._pointers.get(reference)
        if pointer is None:
            pointer = self._pointers[reference] = Pointer(reference, revision, reference.alias or PROD)
        return pointer

    def forget_idle(self) -> None:
        """Stop to follow what nobody has used for long."""
        oldest = time.monotonic() - IDLE_SECONDS
        for reference, pointer in list(self._pointers.items()):
            if pointer.last_use < oldest and reference not in self._pins:
                del self._pointers[reference]

    def aliases_of(self, digest: str) -> tuple[str, ...]:
        """Aliases that mean this revision here, sorted."""
        return tuple(sorted({p.label for p in self._pointers.values() if p.revision.digest == digest}))

    def pin(self, text: str, revision: Revision) -> None:
        """Keep what the reference means, now and after each move."""
        self._pins[Reference.parse(text)] = revision.digest
        self._pinned = frozenset(self._pins.values())

    def unpin(self, text: str, digest: str) -> None:
        """End the pin of this reference, and every pin of the revision it means. Idempotent."""
        reference = Reference.parse(text)
        self._pins = {r: d for r, d in self._pins.items() if r != reference and d != digest}
        self._pinned = frozenset(self._pins.values())

    @property
    def pinned(self) -> frozenset[str]:
        """Digests that are pinned."""
        return self._pinned

    async def _look_up(self, reference: Reference) -> Revision:
        revision, label = await self.read(reference)
        if reference.revision is None and reference.digest is None:
            self._pointers.setdefault(reference, Pointer(reference, revision, label))
        else:
            while len(self._fixed) >= _REMEMBERED:
                del self._fixed[next(iter(self._fixed))]
            self._fixed[reference] = revision
        return revision

    def _read(self, reference: Reference) -> tuple[Revision, str]:
        assert self._registry is not None
        revision = self._registry.resolve(reference)
        if reference.revision is not None or reference.digest is not None:
            return revision, ""
        entry = self._registry.aliases(reference.name).get(reference.alias or PROD)
        if entry is not None and entry.weighted:
            raise UnimplementedError(
                f"{reference.name}@{entry.alias} is a weighted alias, which servers do not follow yet: "
                "point it at one revision",
                reason="WEIGHTED_ALIAS",
            )
        if reference.alias is not None:
            return revision, reference.alias
        return revision, PROD if entry is not None else LATEST
