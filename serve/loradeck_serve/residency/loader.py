"""The loader: a revision's files to local disk, through every check, into the engine, and past its probe."""

import asyncio
import itertools
import logging
from concurrent.futures import Executor
from pathlib import Path

from loradeck_registry.errors import InvalidError, LoradeckError, PreconditionError
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.servability.adapter import BaseShapes, check_adapter
from loradeck_serve.engine.base import EngineAdapter
from loradeck_serve.engine.probe import ProbeResult, run_probe
from loradeck_serve.engine_handle import EngineHandle
from loradeck_serve.residency.hold import RegistryHold
from loradeck_serve.served_base import ServedBase
from loradeck_tasks.stored import stored_probe

_log = logging.getLogger(__name__)


class AdapterLoader:
    """Brings revisions from the registry into the engine. The engine sees nothing that has not passed every check."""

    def __init__(
        self,
        registry: Registry | None,
        engine: EngineHandle,
        base: ServedBase,
        shapes: BaseShapes,
        executor: Executor,
        hold: RegistryHold | None,
        *,
        max_rank: int,
        probe: bool,
        allow_indistinct: bool,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._base = base
        self._shapes = shapes
        self._executor = executor
        self._hold = hold
        self._max_rank = max_rank
        self._probe = probe
        self._allow_indistinct = allow_indistinct
        self._prepared: dict[str, EngineAdapter] = {}
        self._going: dict[str, asyncio.Future[None]] = {}
        """Revisions whose files are just being given up to the cache, by digest."""
        self._numbers = itertools.count(1)

    def is_local(self, revision: Revision) -> bool:
        """Whether the revision's files are in the local cache already."""
        return self._registry is not None and self._registry.is_local(revision)

    async def prepare(self, revision: Revision) -> None:
        """Fetch, verify and check. Raises PreconditionError with the defect's reason, NotFoundError, DamagedError."""
        self._base.check_compatible(revision)
        if (going := self._going.get(revision.digest)) is not None:
            # Otherwise the cache would be told last that nobody uses the files.
            await asyncio.wait([going])
        if self._hold is not None:
            if self.is_local(revision):
                self._hold.begin(revision.digest)
            else:
                # First the lease, then the look at the registry: no collection can come between them.
                await self._hold.take(revision.digest)
        adapter = await asyncio.get_running_loop().run_in_executor(self._executor, self._prepare, revision)
        self._prepared[revision.digest] = adapter

    async def insert(self, revision: Revision) -> None:
        """Load into the engine and run the probe; an adapter that fails it is taken out again before this raises."""
        adapter = self._prepared.pop(revision.digest)
        engine = self._engine.get()
        try:
            await engine.load(adapter)
        except PreconditionError as error:
            raise named(revision, error) from error
        if not self._probe:
            return
        if revision.manifest.probe is None:
            _log.warning("revision has no probe: loaded unproved", extra={"adapter": str(revision)})
            return
        try:
            result = await self._run_probe(revision, adapter.added_token_ids)
        except BaseException:
            await asyncio.shield(engine.unload(revision.digest))
            raise
        _log.info("probe passed", extra={"adapter": str(revision), "error": round(result.error, 6),
                                         "distance": round(result.distance, 6), "verdict": result.verdict})  # fmt: skip

    async def remove(self, revision: Revision) -> None:
        """Take it out of the engine."""
        await self._engine.get().unload(revision.digest)

    def released(self, revision: Revision) -> None:
        """The revision is neither loaded nor being loaded: the registry may delete it, the cache evict its files."""
        if self._hold is not None:
            self._hold.release(revision.digest)
        if self._registry is not None:
            digest = revision.digest
            going = asyncio.get_running_loop().run_in_executor(self._executor, self._registry.let_go, revision)
            self._going[digest] = going
            going.add_done_callback(lambda _: self._going.pop(digest, None))

    async def _run_probe(self, revision: Revision, added_token_ids: tuple[int, ...]) -> ProbeResult:
        probe = stored_probe(revision.manifest.probe or {}, str(revision))
        try:
            return await run_probe(
                self._engine.get(),
                probe,
                revision.digest,
                added_token_ids=added_token_ids,
                allow_indistinct=self._allow_indistinct,
                name=f"probe-{next(self._numbers)}",
            )
        except PreconditionError as error:
            raise named(revision, error) from error
        except InvalidError as error:
            # The engine refuses what the publisher wrote: a token that nobody has, a prompt over the context.
            message = f"the engine does not take its probe ({error.message}): publish it anew"
            raise named(revision, PreconditionError(message, reason="BAD_PROBE")) from error

    def _prepare(self, revision: Revision) -> EngineAdapter:
        assert self._registry is not None
        folder: Path = self._registry.local(revision)
        try:
            facts = check_adapter(folder, revision.manifest, self._shapes, max_rank=self._max_rank)
        except LoradeckError as error:
            # Whatever is wrong with a published adapter, the caller's request is not what is malformed.
            raise named(revision, error) from error
        return EngineAdapter(revision.digest, folder, facts.rank, facts.added_token_ids)


def named(revision: Revision, error: LoradeckError) -> PreconditionError:
    """The error of a revision that cannot be served, with its name in front."""
    return PreconditionError(
        f"{revision}: {error.message}", reason=error.reason, field="adapter", metadata=error.metadata
    )
