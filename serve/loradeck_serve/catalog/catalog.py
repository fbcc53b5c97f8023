"""The catalog: what each reference means on this server now. Revisions are remembered, aliases are followed."""

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, field

from loradeck_registry.errors import NotFoundError
from loradeck_registry.reference import LATEST, PROD, Reference
from loradeck_registry.registry import Registry, Revision
from loradeck_serve.catalog.meaning import Meaning
from loradeck_serve.domain import AliasFlip

_REMEMBERED = 4096
IDLE_SECONDS = 3600.0
"""An alias that nobody has used for this long is no longer followed; its next use reads the registry."""


@dataclass
class Pointer:
    """A movable reference and what it means here."""

    reference: Reference
    meaning: Meaning
    last_use: float = field(default_factory=time.monotonic)


class Catalog:
    """References to revisions, in memory. All methods run on one event loop; the registry is read in `executor`.

    `shared` is told of a weighted alias when it is first used here: all its revisions will be needed.
    """

    def __init__(
        self, registry: Registry | None, executor: Executor, shared: Callable[[Meaning], None] = lambda _: None
    ) -> None:
        self._registry = registry
        self._executor = executor
        self._shared = shared
        self._pointers: dict[Reference, Pointer] = {}
        self._fixed: dict[Reference, Meaning] = {}
        self._lookups: dict[Reference, asyncio.Task[Meaning]] = {}
        self._pins: dict[Reference, frozenset[str]] = {}
        self._pinned: frozenset[str] = frozenset()

    async def resolve(self, text: str, caller: str = "") -> Revision:
        """The revision that a reference means on this server now, for this caller where it is a weighted alias.

        Memory answers for what is known. Raises InvalidError for a malformed reference, NotFoundError for an unknown
        one, UnavailableError if the registry must be asked and cannot be reached.
        """
        return (await self.meaning(text)).draw(caller)

    async def meaning(self, text: str) -> Meaning:
        """All that a reference means. Raises as `resolve` does."""
        reference = Reference.parse(text)
        if pointer := self._pointers.get(reference):
            pointer.last_use = time.monotonic()
            return pointer.meaning
        if fixed := self._fixed.get(reference):
            return fixed
        lookup = self._lookups.get(reference)
        if lookup is None:
            lookup = self._lookups[reference] = asyncio.create_task(self._look_up(reference))
            lookup.add_done_callback(lambda done: self._looked_up(reference, done))
        try:
            return await asyncio.shield(lookup)
        finally:
            # A failure's traceback holds this frame, and the task holds the failure.
            del lookup

    async def read(self, reference: Reference) -> Meaning:
        """What the registry says now, past the memory. Raises as `resolve` does."""
        if self._registry is None:
            raise NotFoundError(
                f"this server was started without a registry and serves its base alone: no adapter {reference.name!r}",
                reason="NO_REGISTRY",
            )
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, reference)

    def pointers(self, names: Collection[str] | None = None) -> list[Pointer]:
        """The movable references followed here, of `names` or all."""
        return [p for p in self._pointers.values() if names is None or p.reference.name in names]

    def flip(self, pointer: Pointer, meaning: Meaning) -> AliasFlip:
        """Let a followed reference mean something else, from this call on."""
        previous, pointer.meaning = pointer.meaning, meaning
        if pointer.reference in self._pins:
            self._pin(pointer.reference, meaning)
        return AliasFlip(
            pointer.reference.name,
            meaning.label,
            previous.main.number,
            meaning.main.number,
            time.time(),
            meaning.shares,
        )

    def follow(self, reference: Reference, meaning: Meaning) -> Pointer:
        """Follow a movable reference from now on.

        A bare name and the alias behind it are two references: the second to come takes what the first means here, so
        that they cannot answer differently while a move that the registry knows already is still being loaded here.
        """
        pointer = self._pointers.get(reference)
        if pointer is None:
            twin = self._pointers.get(Reference(reference.name, alias=None if reference.alias else meaning.label))
            if twin is not None and twin.meaning.label == meaning.label:
                meaning = twin.meaning
            pointer = self._pointers[reference] = Pointer(reference, meaning)
            if meaning.weighted:
                self._shared(meaning)
        return pointer

    def forget_idle(self) -> None:
        """Stop to follow what nobody has used for long."""
        oldest = time.monotonic() - IDLE_SECONDS
        for reference, pointer in list(self._pointers.items()):
            if pointer.last_use < oldest and reference not in self._pins:
                del self._pointers[reference]

    def aliases_of(self, digest: str) -> tuple[str, ...]:
        """Aliases that mean this revision here, to all callers or some, sorted."""
        return tuple(sorted({p.meaning.label for p in self._pointers.values() if digest in p.meaning.digests}))

    def shared_use(self) -> dict[str, float]:
        """When a weighted alias was last used, in seconds since the epoch, for each of its revisions."""
        offset = time.time() - time.monotonic()
        used: dict[str, float] = {}
        for pointer in self._pointers.values():
            if pointer.meaning.weighted:
                for digest in pointer.meaning.digests:
                    used[digest] = max(used.get(digest, 0.0), pointer.last_use + offset)
        return used

    def pin(self, text: str, meaning: Meaning) -> None:
        """Keep what the reference means, now and after each move."""
        self._pin(Reference.parse(text), meaning)

    def unpin(self, text: str, meaning: Meaning) -> None:
        """End the pin of this reference, and every pin of a revision that it means. Idempotent."""
        reference = Reference.parse(text)
        self._pins = {r: d for r, d in self._pins.items() if r != reference and not d & meaning.digests}
        self._pinned = frozenset().union(*self._pins.values())

    @property
    def pinned(self) -> frozenset[str]:
        """Digests that are pinned."""
        return self._pinned

    def _pin(self, reference: Reference, meaning: Meaning) -> None:
        self._pins[reference] = meaning.digests
        self._pinned = frozenset().union(*self._pins.values())

    def _looked_up(self, reference: Reference, done: asyncio.Task[Meaning]) -> None:
        self._lookups.pop(reference, None)
        if not done.cancelled():
            # Whoever asked may have gone meanwhile: an error that nobody hears of is none.
            done.exception()

    async def _look_up(self, reference: Reference) -> Meaning:
        meaning = await self.read(reference)
        if reference.revision is None and reference.digest is None:
            return self.follow(reference, meaning).meaning
        while len(self._fixed) >= _REMEMBERED:
            del self._fixed[next(iter(self._fixed))]
        self._fixed[reference] = meaning
        return meaning

    def _read(self, reference: Reference) -> Meaning:
        registry = self._registry
        assert registry is not None
        if reference.revision is not None or reference.digest is not None or reference.alias == LATEST:
            return Meaning((registry.resolve(reference),), reference.alias or "")
        entry = registry.aliases(reference.name).get(reference.alias or PROD)
        if entry is None:
            # Says what is wrong with an alias that is not there; a bare name without `prod` means the latest revision.
            return Meaning((registry.resolve(reference),), reference.alias or LATEST)
        targets = (registry.resolve(Reference(reference.name, revision=t.revision)) for t in entry.targets)
        return Meaning(tuple(targets), entry.alias, entry)
