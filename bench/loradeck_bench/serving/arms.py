"""Ways to the same engine that are compared round by round: over a pipe, over gRPC, over vLLM's own HTTP server."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loradeck_bench.children import Child
from loradeck_bench.serving.prompts import Prompt
from loradeck_client import AsyncClient, Sampling
from loradeck_registry.errors import LoradeckError, UnavailableError

SECONDS = 120.0
"""Deadline of one request."""


@dataclass(frozen=True)
class Work:
    """One round: every prompt once, `concurrency` at a time, greedy, `output_tokens` each."""

    prompts: Sequence[Prompt]
    output_tokens: int
    concurrency: int
    stream: bool = True


@dataclass(frozen=True)
class Round:
    """What one round took. Both lists are in milliseconds, in the order of the prompts."""

    tokens: int
    seconds: float
    ttft_ms: tuple[float, ...]
    """Time to first token; empty without streams."""
    counts: tuple[int, ...]
    """Tokens of each reply."""

    @property
    def tokens_per_s(self) -> float:
        """Throughput."""
        return self.tokens / self.seconds


class Arm(Protocol):
    """One way to an engine."""

    name: str

    async def run(self, work: Work) -> Round:
        """Carry out one round. Raises LoradeckError if a request fails."""


class PipeArm:
    """The engine in a process of its own, asked over a pipe (`loradeck_serve.engine.rounds`), which times itself."""

    name = "in_process"

    def __init__(self, child: Child) -> None:
        self._child = child

    async def read(self) -> dict[str, Any]:
        """The next line of the engine's process. Raises UnavailableError if it has ended or refuses."""
        assert self._child.output is not None
        line = await asyncio.to_thread(self._child.output.readline)
        answer: dict[str, Any] = json.loads(line) if line else {"error": "\n".join(self._child.tail(4)) or "it ended"}
        if "error" in answer:
            raise UnavailableError(f"the engine in process: {answer['error']}", reason="ENGINE_IN_PROCESS")
        return answer

    async def run(self, work: Work) -> Round:
        """See Arm."""
        order = {
            "prompts": [prompt.ids for prompt in work.prompts],
            "output_tokens": work.output_tokens,
            "concurrency": work.concurrency,
            "stream": work.stream,
        }
        await asyncio.to_thread(self._write, json.dumps(order) + "\n")
        answer = await self.read()
        counts = (work.output_tokens,) * len(work.prompts)
        return Round(answer["tokens"], answer["seconds"], tuple(answer["ttft_ms"]), counts)

    def _write(self, line: str) -> None:
        assert self._child.input is not None
        self._child.input.write(line.encode())
        self._child.input.flush()


class GrpcArm:
    """`loradeck serve`, asked by this package's client: Generate for streams, AnswerShort without."""

    name = "grpc"

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def run(self, work: Work) -> Round:
        """See Arm."""
        sampling = Sampling(temperature=0.0, max_tokens=work.output_tokens)
        return await run_all(work, lambda prompt: self._one(prompt, work.stream, sampling))

    async def _one(self, prompt: Prompt, stream: bool, sampling: Sampling) -> tuple[int, float]:
        if not stream:
            answer = await self._client.answer_short(prompt.text, sampling=sampling, timeout=SECONDS)
            return answer.usage.output_tokens, 0.0
        first = 0.0
        async with self._client.generate(prompt=prompt.text, sampling=sampling, timeout=SECONDS) as chunks:
            async for _ in chunks:
                first = first or time.perf_counter()
            answer = await chunks.result()
        return answer.usage.output_tokens, first


class HttpArm:
    """vLLM's OpenAI-compatible server, asked on /v1/completions; `session` is an aiohttp.ClientSession on it."""

    name = "http"

    def __init__(self, session: Any, model: str) -> None:
        self._session = session
        self._model = model

    async def run(self, work: Work) -> Round:
        """See Arm."""
        return await run_all(work, lambda prompt: self._one(prompt, work))

    async def _one(self, prompt: Prompt, work: Work) -> tuple[int, float]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": prompt.text,
            "max_tokens": work.output_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": work.stream,
        }
        if work.stream:
            body["stream_options"] = {"include_usage": True}
        async with self._session.post("/v1/completions", json=body) as response:
            if response.status != 200:
                raise UnavailableError(f"vLLM's HTTP server answers {response.status}: {await response.text()}")
            if not work.stream:
                return int((await response.json())["usage"]["completion_tokens"]), 0.0
            first, count = 0.0, 0
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if event["choices"] and event["choices"][0]["text"]:
                    first = first or time.perf_counter()
                if event.get("usage"):
                    count = int(event["usage"]["completion_tokens"])
            return count, first


async def run_all(work: Work, one: Callable[[Prompt], Awaitable[tuple[int, float]]]) -> Round:
    """Carry out a round of requests of this process: `one` returns a reply's tokens and when its first one came."""
    places = asyncio.Semaphore(work.concurrency)

    async def timed(prompt: Prompt) -> tuple[int, float]:
        async with places:
            begin = time.perf_counter()
            count, first = await one(prompt)
            return count, 1000 * (first - begin)

    start = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(timed(prompt)) for prompt in work.prompts]
    except ExceptionGroup as failed:
        first = failed.exceptions[0]
        raise first if isinstance(first, LoradeckError) else UnavailableError(f"a request failed: {first}") from first
    seconds = time.perf_counter() - start
    counts = tuple(task.result()[0] for task in tasks)
    return Round(sum(counts), seconds, tuple(task.result()[1] for task in tasks) if work.stream else (), counts)
