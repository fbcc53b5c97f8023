"""The engine in this process, asked round by round over a pipe: what the front end's cost is measured against.

Run as `python -m loradeck_serve.engine.rounds --settings JSON`, where JSON is an object of EngineSettings, or a file
that holds one. Every line on standard output is a JSON object. The first one says what was started:
`{"ready": true, "rows": …, "slots": …, "max_model_len": …, "dtype": …, "compiled": …, "start_seconds": …}`. Then each
line on standard input is one order, and has one line for answer:

- a round, `{"prompts": [[token id, …], …], "output_tokens": 64, "concurrency": 64, "stream": true, "adapter": null}`:
  one greedy request per prompt, `concurrency` at a time (all at once if it is left out), of exactly `output_tokens`
  each. The answer is `{"tokens": …, "seconds": …, "ttft_ms": […], "latency_ms": […]}`, both lists by prompt; without
  `stream` the answers are taken as a whole, and `ttft_ms` is empty.
- an adapter, `{"load": {"digest": …, "folder": …, "rank": …, "added_token_ids": []}}`, answered by
  `{"loaded": digest}`; rounds name it by its digest.

An order that fails is answered by `{"error": one line}`, and the engine goes on. The end of standard input ends it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loradeck_registry.errors import InvalidError, LoradeckError
from loradeck_serve.engine.base import EngineAdapter, GenerateSettings
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine


class Round(BaseModel):
    """One round of requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: tuple[tuple[int, ...], ...] = Field(min_length=1)
    output_tokens: int = Field(ge=1)
    concurrency: int | None = Field(default=None, ge=1)
    stream: bool = True
    adapter: str | None = None


@dataclass
class Timing:
    """When one request got its first token and its last, in milliseconds after it was sent, and how many it got."""

    first: float
    last: float
    tokens: int


class Runner:
    """Carries out orders on one engine."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self._requests = 0

    async def answer(self, line: str) -> dict[str, Any]:
        """The answer to one line of standard input."""
        try:
            order = json.loads(line)
            if isinstance(order, dict) and "load" in order:
                return await self._load(order["load"])
            return await self._run(Round.model_validate(order))
        except (LoradeckError, ValidationError, ValueError, TypeError, KeyError) as error:
            return {"error": str(error).splitlines()[0]}

    async def _load(self, values: dict[str, Any]) -> dict[str, Any]:
        adapter = EngineAdapter(
            values["digest"], Path(values["folder"]), values["rank"], tuple(values.get("added_token_ids", ()))
        )
        await self._engine.load(adapter)
        return {"loaded": adapter.digest}

    async def _run(self, wanted: Round) -> dict[str, Any]:
        places = asyncio.Semaphore(wanted.concurrency or len(wanted.prompts))
        start = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._request(prompt, wanted, places)) for prompt in wanted.prompts]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        seconds = time.perf_counter() - start
        timings = [task.result() for task in tasks]
        return {
            "tokens": sum(timing.tokens for timing in timings),
            "seconds": seconds,
            "ttft_ms": [timing.first for timing in timings] if wanted.stream else [],
            "latency_ms": [timing.last for timing in timings],
        }

    async def _request(self, prompt: Sequence[int], wanted: Round, places: asyncio.Semaphore) -> Timing:
        async with places:
            self._requests += 1
            settings = GenerateSettings(max_tokens=wanted.output_tokens, whole=not wanted.stream)
            start = time.perf_counter()
            first, tokens = 0.0, 0
            async for output in self._engine.generate(f"round-{self._requests}", prompt, settings, wanted.adapter):
                first = first or 1000 * (time.perf_counter() - start)
                tokens += len(output.token_ids)
            return Timing(first, 1000 * (time.perf_counter() - start), tokens)


async def serve(settings: EngineSettings, orders: TextIO, answers: TextIO) -> None:
    """Start the engine, say so, answer `orders` line by line until they end, and stop it."""
    start = time.perf_counter()
    engine = await VllmEngine.start(settings)
    try:
        info = engine.info
        _write(
            answers,
            {
                "ready": True,
                "rows": info.rows,
                "slots": info.slots,
                "max_model_len": info.max_model_len,
                "dtype": info.dtype,
                "compiled": info.compiled,
                "start_seconds": round(time.perf_counter() - start, 2),
            },
        )
        runner = Runner(engine)
        while line := await asyncio.to_thread(orders.readline):
            if line.strip():
                _write(answers, await runner.answer(line))
    finally:
        await engine.stop()


def _write(answers: TextIO, values: dict[str, Any]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def read_settings(text: str) -> EngineSettings:
    """Settings from JSON, or from the file of that name. Raises InvalidError."""
    try:
        return EngineSettings.parse(json.loads(text if text.lstrip().startswith("{") else Path(text).read_text()))
    except (OSError, ValueError) as error:
        raise InvalidError(f"--settings: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m loradeck_serve.engine.rounds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--settings", required=True, metavar="JSON", help="EngineSettings, or a file that holds them")
    options = parser.parse_args(arguments)
    # What the engine and its libraries print must not get between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers, contextlib.redirect_stdout(sys.stderr):
        os.dup2(sys.stderr.fileno(), 1)
        try:
            asyncio.run(serve(read_settings(options.settings), sys.stdin, answers))
        except LoradeckError as error:
            _write(answers, {"error": str(error)})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
