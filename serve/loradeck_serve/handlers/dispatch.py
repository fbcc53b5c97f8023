"""The way of every request into the engine: queue, residency, turn. And what is known of it afterwards."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from loradeck_registry.errors import InvalidError, UnavailableError
from loradeck_serve.access.identity import Identity
from loradeck_serve.access.quotas import Quotas
from loradeck_serve.admission.queue import BASE, AdmissionQueue, Place
from loradeck_serve.config import Limits
from loradeck_serve.domain import Call, Provenance, Residency
from loradeck_serve.engine.base import Engine
from loradeck_serve.engine_handle import EngineHandle
from loradeck_serve.handlers.targets import Target
from loradeck_serve.live import Live
from loradeck_serve.observation.metrics import Metrics
from loradeck_serve.residency.contract import Lease
from loradeck_serve.residency.manager import ResidencyManager
from loradeck_serve.tracing.stages import Passage


@dataclass
class Admitted:
    """A request that has its turn: the engine to call, and with what."""

    engine: Engine
    adapter: str | None
    priority: int
    place: Place
    provenance: Provenance
    _name: str
    _numbers: Iterator[int]
    _quotas: Quotas
    _caller: Identity
    passage: Passage

    def charge(self, output_tokens: int) -> None:
        """Count generated tokens against the adapter's share and the caller's quota."""
        self.place.charge(output_tokens)
        self._quotas.charge(self._caller, output_tokens)

    def engine_id(self) -> str:
        """A request id for the engine: unique, whatever ids callers send."""
        return f"{self._name}-{next(self._numbers)}"


class Dispatcher:
    """Admits requests. A context ends when the request has left the engine, however it ends."""

    def __init__(
        self,
        queue: AdmissionQueue,
        residency: ResidencyManager,
        engine: EngineHandle,
        quotas: Quotas,
        limits: Live[Limits],
        metrics: Metrics,
    ) -> None:
        self._queue = queue
        self._residency = residency
        self._engine = engine
        self._quotas = quotas
        self._limits = limits
        self._metrics = metrics
        self._numbers = itertools.count(1)

    def check_prompt(self, prompt_tokens: int, output_tokens: int, field: str) -> int:
        """Tokens that remain for the output. Raises InvalidError (PROMPT_TOO_LONG) unless `output_tokens` fit."""
        limit = self._engine.info.max_model_len
        most = self._limits.now.prompt_tokens
        if 0 < most < prompt_tokens:
            raise InvalidError(
                f"the prompt has {prompt_tokens} tokens, this server takes {most}: shorten `{field}`",
                reason="PROMPT_TOO_LONG",
                field=field,
                metadata={"prompt_tokens": str(prompt_tokens), "limit": str(most)},
            )
        if prompt_tokens + output_tokens > limit:
            raise InvalidError(
                f"the prompt has {prompt_tokens} tokens; with at least {output_tokens} for the answer the limit is "
                f"{limit}: shorten `{field}`",
                reason="PROMPT_TOO_LONG",
                field=field,
                metadata={"prompt_tokens": str(prompt_tokens), "context_tokens": str(limit)},
            )
        return limit - prompt_tokens

    @asynccontextmanager
    async def admit(self, call: Call, target: Target, prompt_tokens: int) -> AsyncIterator[Admitted]:
        """Wait for residency and turn. Raises UnavailableError, ExhaustedError, and whatever the load raises."""
        self._engine.get()
        await self._quotas.tokens(call.access, prompt_tokens)
        passage = Passage(call.trail, "none" if target.adapter is None else "failed", prompt_tokens)
        try:
            async with self._turn(call, target, passage) as admitted:
                yield admitted
        finally:
            passage.end()

    @asynccontextmanager
    async def _turn(self, call: Call, target: Target, passage: Passage) -> AsyncIterator[Admitted]:
        name = target.name if target.adapter is not None else BASE
        prompt_tokens = passage.prompt_tokens
        async with self._queue.enter(name, call.caller, call.deadline) as place:
            if target.adapter is None:
                await place.dispatch(BASE, prompt_tokens)
                yield self._admitted(call, target, place, None, passage)
                return
            async with self._residency.use(target.adapter) as lease:
                passage.has_loaded(lease.residency.value)
                await place.dispatch(target.digest, prompt_tokens)
                if not lease.valid:
                    raise UnavailableError(
                        "the engine was restarted: try again", reason="ENGINE_RESTARTING", retry_after=1
                    )
                if lease.dispatched():
                    self._metrics.swaps.labels(self._metrics.label(target.name)).inc()
                yield self._admitted(call, target, place, lease, passage)

    def _admitted(self, call: Call, target: Target, place: Place, lease: Lease | None, passage: Passage) -> Admitted:
        engine = self._engine.get()
        passage.has_turn()
        residency = lease.residency if lease is not None else Residency.NONE
        label = self._metrics.label(place.name)
        self._metrics.queue_wait.labels(label).observe(place.queue_seconds)
        self._metrics.prompt_tokens.labels(label).inc(place.prompt_tokens)
        self._metrics.arrived_at(place.name, residency)
        provenance = Provenance(
            request_id=call.request_id,
            adapter=target.name,
            revision=target.revision,
            digest=target.digest,
            requested=target.requested,
            residency=residency,
            queue_seconds=place.queue_seconds,
            load_seconds=lease.load_seconds if lease is not None else 0.0,
        )
        return Admitted(
            engine, target.digest if lease is not None else None, place.priority, place, provenance,
            f"r{next(self._numbers)}", itertools.count(), self._quotas, call.access, passage,
        )  # fmt: skip
