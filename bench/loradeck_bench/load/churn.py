"""Adapter churn while a load runs: revisions are published, aliases move to them and back, adapters are unloaded."""

import asyncio
import contextlib
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from loradeck_bench.load.flips import Flip
from loradeck_client import AliasFlip, AsyncAdminClient
from loradeck_registry.errors import InvalidError, LoradeckError, PreconditionError
from loradeck_registry.reference import Reference
from loradeck_registry.registry import Registry, Revision

OPERATIONS = ("publish", "move", "unload")
WHY = "churn during a load test"
PATIENCE = 30.0
"""Longest wait for the server to follow a move."""

Asked = tuple[str, int, int | None]
"""What was asked of whom: reference, number of the row, limit of tokens."""


@dataclass(frozen=True)
class Operation:
    """What was done. `started` and `ended` in seconds on the run's clock; `error` is empty if it went well."""

    what: str
    adapter: str
    revision: int
    started: float
    ended: float
    error: str = ""


@dataclass
class _Alias:
    """One alias under churn: what it meant at first and means now, and what it may move to."""

    name: str
    alias: str
    first: Revision
    now: Revision
    known: list[Revision]

    @property
    def key(self) -> str:
        """As flips name it."""
        return f"{self.name}@{self.alias}"


@dataclass
class Churn:
    """Operations in turn on each alias under load, one every `every` seconds.

    `publish` publishes the revision that the alias means once more: the same files under a new digest, so that every
    answer stays right. `move` moves the alias to the newest such revision, or back. `unload` takes the revision that
    the alias means out of the server, which has to load it again. Aliases are moved back at the end; revisions stay.
    """

    registry: Registry
    operator: AsyncAdminClient
    operations: Sequence[str]
    every: float
    aliases: list[_Alias]
    done: list[Operation] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)
    golden: dict[Asked, str] = field(default_factory=dict)
    """Answers of the first revisions that were asked for after the load, in calm."""
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    _watching: "asyncio.Task[None] | None" = None
    _writing: "asyncio.Future[None] | None" = None
    """The last move: its thread goes on when the churn is cancelled."""

    @classmethod
    def of(
        cls, registry: Registry, operator: AsyncAdminClient, references: Sequence[str], what: str, every: float
    ) -> "Churn":
        """Churn of the aliases among `references`; `what` is a list with commas. Raises InvalidError for an unknown
        operation or without an alias, PreconditionError for a weighted one, and what resolving raises."""
        operations = [word.strip() for word in what.split(",") if word.strip()]
        if not operations or set(operations) - set(OPERATIONS):
            raise InvalidError(f"bad churn {what!r}: use {', '.join(OPERATIONS)}", reason="BAD_CHURN", field="churn")
        found = [_alias(registry, Reference.parse(text)) for text in references if text]
        aliases = [one for one in found if one is not None]
        if not aliases:
            raise InvalidError("churn needs an --adapter that names an alias: NAME@ALIAS", field="churn")
        return cls(registry, operator, operations, every, aliases)

    @property
    def initial(self) -> dict[str, str]:
        """Digest that each alias meant at first."""
        return {one.key: one.first.digest for one in self.aliases}

    async def run(self, now: Callable[[], float]) -> None:
        """Go on until cancelled; `now` is the run's clock. What fails is noted, and the next operation follows."""
        watching = self._watching = asyncio.create_task(self._watch(now))
        begin = now()
        try:
            number = 0
            while True:
                await asyncio.sleep(max(0.0, begin + (number + 1) * self.every - now()))
                what = self.operations[number % len(self.operations)]
                alias = self.aliases[number // len(self.operations) % len(self.aliases)]
                await self._do(what, alias, now)
                number += 1
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def restore(self) -> None:
        """Move every alias back to what it meant at first. Raises what moving raises."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        for one in self.aliases:
            if one.now.number != one.first.number:
                await asyncio.to_thread(self._move_alias, one, one.first)

    def describe(self) -> list[dict[str, Any]]:
        """The operations in the form of report files."""
        return [asdict(operation) for operation in self.done]

    async def _do(self, what: str, alias: _Alias, now: Callable[[], float]) -> None:
        started = now()
        error = ""
        try:
            if what == "publish":
                alias.known.append(await asyncio.to_thread(self._publish, alias))
            elif what == "move":
                await self._move(alias, now)
            else:
                await self.operator.unload(f"{alias.name}@{alias.now.number}")
        except LoradeckError as raised:
            error = raised.message
        except Exception as raised:  # a defect of this client must not end the churn unseen
            error = f"{type(raised).__name__}: {raised}"
        number = alias.known[-1].number if what == "publish" else alias.now.number
        self.done.append(Operation(what, alias.key, number, started, now(), error))

    def _publish(self, alias: _Alias) -> Revision:
        folder = self.registry.local(alias.now)
        manifest = alias.now.manifest.model_copy(
            update={
                "create_time": datetime.now(UTC),
                "provenance": {**alias.now.manifest.provenance, "copy_of": str(alias.now)},
            }
        )
        files = {file.path: folder / file.path for file in manifest.files}
        return self.registry.push(alias.name, manifest, files, reason=WHY)

    async def _move(self, alias: _Alias, now: Callable[[], float]) -> None:
        target = alias.known[-1] if alias.known[-1].number != alias.now.number else alias.first
        if target.number == alias.now.number:
            raise PreconditionError("nothing to move to: publish before")
        flip = Flip(alias.key, target.digest, now())
        self.flips.append(flip)
        self._heard.clear()
        try:
            self._writing = asyncio.ensure_future(asyncio.to_thread(self._move_alias, alias, target))
            await asyncio.shield(self._writing)
        except LoradeckError:
            self.flips.remove(flip)
            raise
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), PATIENCE)
        if flip.acknowledged is None:
            if self._watching is not None and self._watching.done():
                await self._watching  # what it died of
            raise PreconditionError(f"the server did not follow the move within {PATIENCE:g} s")

    def _move_alias(self, alias: _Alias, target: Revision) -> None:
        self.registry.move_alias(alias.name, alias.alias, str(target.number), expect=alias.now.number, why=WHY)
        alias.now = target

    async def _watch(self, now: Callable[[], float]) -> None:
        """Note when the server says that it follows a move."""
        by_key = {one.key: one for one in self.aliases}
        async for event in self.operator.watch([one.name for one in self.aliases]):
            alias = by_key.get(f"{event.name}@{event.alias}") if isinstance(event, AliasFlip) else None
            if alias is None or not isinstance(event, AliasFlip):
                continue
            meant = {revision.number: revision.digest for revision in alias.known}.get(event.revision)
            for flip in reversed(self.flips):
                if (flip.name, flip.digest, flip.acknowledged) == (alias.key, meant, None):
                    flip.acknowledged = now()
                    self._heard.set()
                    break


def alias_of(reference: Reference, aliases: Container[str]) -> str | None:
    """The alias that a reference names, or prod where a bare name means that; None for what is pinned or derived."""
    if reference.revision is not None or reference.digest is not None:
        return None
    alias = reference.alias or "prod"
    return alias if alias in aliases else None


def _alias(registry: Registry, reference: Reference) -> _Alias | None:
    entries = registry.aliases(reference.name)
    alias = alias_of(reference, entries)
    if alias is None:
        return None
    if entries[alias].weighted:
        raise PreconditionError(f"{reference.name}@{alias} is weighted: churn moves aliases that mean one revision")
    revision = registry.resolve(f"{reference.name}@{alias}")
    return _Alias(reference.name, alias, revision, revision, [revision])
