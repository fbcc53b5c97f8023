"""A real gRPC server on port 0, whose servicer answers after known delays."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

import loradeck.inference.v1 as inference

DIGESTS = {1: "sha256:" + "a" * 64, 2: "sha256:" + "b" * 64}


@dataclass
class ScriptedServicer(inference.InferenceServiceServicer):
    """Answers like a server, after the delays that a test sets."""

    classify_seconds: float = 0.0
    first_token_seconds: float = 0.0
    token_seconds: float = 0.0
    tokens: int = 5
    tokens_per_chunk: int = 1
    revision: int = 1
    one_at_a_time: asyncio.Lock | None = None
    stall: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: requests are answered. Cleared: the server stands still."""
    errors: dict[str, grpc.StatusCode] = field(default_factory=dict)
    """Adapter to the status that it is refused with."""
    seen: list[Any] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.stall.set()

    async def _enter(self, request: Any, context: Any) -> None:
        self.seen.append(request)
        self.arrived.set()
        if request.adapter in self.errors:
            await context.abort(self.errors[request.adapter], "scripted")
        await self.stall.wait()

    def _provenance(self, request: Any) -> Any:
        name = request.adapter.partition("@")[0] or "pocket"
        residency = inference.RESIDENCY_HOT if request.adapter else inference.RESIDENCY_UNSPECIFIED
        return inference.Provenance(
            adapter=name, revision=self.revision, digest=DIGESTS[self.revision], residency=residency
        )

    async def Classify(self, request: Any, context: Any) -> Any:
        await self._enter(request, context)
        if self.one_at_a_time is not None:
            async with self.one_at_a_time:
                await asyncio.sleep(self.classify_seconds)
        else:
            await asyncio.sleep(self.classify_seconds)
        label = request.text.split()[0]
        return inference.ClassifyResponse(
            label=label,
            probabilities=[inference.LabelProbability(label=label, probability=0.75)],
            provenance=self._provenance(request),
            usage=inference.Usage(prompt_tokens=7),
        )

    async def AnswerShort(self, request: Any, context: Any) -> Any:
        await self._enter(request, context)
        return inference.AnswerShortResponse(
            answer=request.question,
            provenance=self._provenance(request),
            usage=inference.Usage(prompt_tokens=7, output_tokens=2),
        )

    async def AnswerLong(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._enter(request, context)
        await asyncio.sleep(self.first_token_seconds)
        sent = 0
        while sent < self.tokens:
            count = min(self.tokens_per_chunk, self.tokens - sent)
            sent += count
            yield inference.AnswerLongResponse(chunk=inference.GenerationChunk(text="word " * count, tokens=count))
            await asyncio.sleep(self.token_seconds * count)
        yield inference.AnswerLongResponse(
            final=inference.GenerationFinal(
                text="word " * self.tokens,
                provenance=self._provenance(request),
                usage=inference.Usage(prompt_tokens=7, output_tokens=self.tokens),
            )
        )

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Echoes the message, or the fields in the order of their names."""
        await self._enter(request, context)
        values = request.fields.values
        text = request.message or " ".join(values[name] for name in sorted(values))
        yield inference.GenerateResponse(chunk=inference.GenerationChunk(text=text, tokens=1))
        yield inference.GenerateResponse(
            final=inference.GenerationFinal(
                text=text, provenance=self._provenance(request), usage=inference.Usage(prompt_tokens=7, output_tokens=1)
            )
        )


@dataclass(frozen=True)
class RunningServer:
    """Where the servicer listens, and the servicer."""

    address: str
    servicer: ScriptedServicer
    server: Any


@pytest.fixture
async def scripted() -> AsyncIterator[RunningServer]:
    server = grpc.aio.server()
    servicer = ScriptedServicer()
    inference.add_InferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield RunningServer(f"127.0.0.1:{port}", servicer, server)
    servicer.stall.set()
    await server.stop(None)
