"""What the front end costs: gRPC against the engine in process, and against vLLM's own HTTP server."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from loradeck_bench.asking import connect
from loradeck_bench.extra import ENGINE, require
from loradeck_bench.loop import run_fast
from loradeck_bench.serving.arms import Arm, GrpcArm, HttpArm, PipeArm, Round, Work
from loradeck_bench.serving.engines import engine_child, http_server, idle_cores
from loradeck_bench.serving.prompts import Prompt, make_prompts
from loradeck_bench.serving.rounds import interval, median, ratios, turns
from loradeck_bench.serving.stage import Stage, circumstances, stage
from loradeck_registry.errors import PreconditionError

STEPS = ("start three engines", "choose prompts", "measure")
STREAMS, UNARY, SINGLE = "streams", "unary", "single"
PLAIN_TASK = {"kind": "short_qa", "format": "plain", "system": None, "template": "{question}"}
"""What AnswerShort makes of a question here: the text as it is, as the HTTP server takes it."""

Rounds = Mapping[str, Mapping[str, Sequence[Round]]]
"""By kind of work, then by name of the arm."""


@dataclass(frozen=True)
class FrontendPlan:
    """Streams, calls without a stream, and one stream alone, to the base, in rounds that take turns."""

    rounds: int = 9
    streams: int = 64
    unary: int = 16
    prompt_tokens: int = 100
    output_tokens: int = 64
    unary_tokens: int = 32
    single: int = 10
    """Requests of a round that come one at a time, for the time to first token."""
    single_tokens: int = 4
    compiled: bool = True
    """Compile the engines, as vLLM does by itself where there are no adapters."""
    kv_cache_gib: float = 0.5

    @property
    def max_model_len(self) -> int:
        """Most tokens of one request."""
        return self.prompt_tokens + self.output_tokens + 1

    def work(self, kind: str, prompts: Sequence[Prompt]) -> Work:
        """One round of one kind."""
        if kind == SINGLE:
            return Work(prompts[: self.single], self.single_tokens, 1)
        if kind == UNARY:
            return Work(prompts, self.unary_tokens, self.unary, stream=False)
        return Work(prompts, self.output_tokens, self.streams)


def measure_frontend(base: Path, plan: FrontendPlan, console: Console) -> dict[str, Any]:
    """Start the engine three times with the same settings, behind a pipe, gRPC and HTTP, and let them take turns.

    Each serves the base alone, without a prefix cache. Raises ChildFailedError or UnavailableError if one does not
    come up.
    """
    require(ENGINE)
    started = os.getloadavg()
    with stage(base, console, STEPS) as place, ExitStack() as stack:
        progress = place.workplace.progress
        with progress.step(STEPS[0]):
            # All at once: what they do first is to import.
            engine = stack.enter_context(engine_child(_engine_settings(place, plan), place.log("engine")))
            http = stack.enter_context(http_server(place.base.folder, _http_options(plan), place.log("http")))
            server = stack.enter_context(place.serve(_server_settings(plan)))
            http.wait(progress.note)

        async def measure() -> dict[str, Any]:
            from aiohttp import ClientSession, TCPConnector

            async with AsyncExitStack() as clients:
                pipe = PipeArm(engine)
                ready = await pipe.read()
                grpc = GrpcArm(await clients.enter_async_context(connect(server.address)))
                session = ClientSession(http.url, connector=TCPConnector(limit=0))
                web = HttpArm(await clients.enter_async_context(session), str(place.base.folder))
                processes = {pipe.name: engine.pid, grpc.name: server.child.pid, web.name: http.child.pid}
                idle = await asyncio.to_thread(idle_cores, processes)
                with progress.step(STEPS[1]):
                    prompts = await choose_prompts(grpc, base, plan)
                with progress.step(STEPS[2]):
                    rounds = await measure_rounds([pipe, grpc, web], prompts, plan, progress.note)
                return {**figures(rounds), "compiled": ready["compiled"], "dtype": ready["dtype"], "idle_cores": idle}

        result = run_fast(measure())
    return {**result, "plan": asdict(plan), **circumstances(started)}


def _engine_settings(place: Stage, plan: FrontendPlan) -> dict[str, Any]:
    return {
        "model": str(place.base.folder),
        "slots": 0,
        "vocabulary": place.base.identity.vocabulary,
        "max_model_len": plan.max_model_len,
        "max_batch_requests": plan.streams,
        "kv_cache_gib": plan.kv_cache_gib,
        "enforce_eager": not plan.compiled,
        "engine": {"enable_prefix_caching": False},
    }


def _server_settings(plan: FrontendPlan) -> dict[str, Any]:
    return {
        "slots": 0,
        "limits.concurrent": plan.streams,
        # The base counts as one adapter, and all streams are its.
        "limits.concurrent_per_adapter": plan.streams,
        "engine.max_model_len": plan.max_model_len,
        "engine.kv_cache_gib": plan.kv_cache_gib,
        "engine.enforce_eager": not plan.compiled,
        "engine.enable_prefix_caching": False,
        "base_tasks.short_qa": json.dumps(PLAIN_TASK | {"max_tokens": plan.unary_tokens}),
    }


def _http_options(plan: FrontendPlan) -> dict[str, Any]:
    return {
        "max_model_len": plan.max_model_len,
        "max_num_seqs": plan.streams,
        "kv_cache_memory_bytes": int(plan.kv_cache_gib * 2**30),
        "enforce_eager": not plan.compiled,
        "enable_prefix_caching": False,
        "generation_config": "vllm",
    }


async def choose_prompts(arm: Arm, base: Path, plan: FrontendPlan) -> list[Prompt]:
    """Prompts whose answers reach the limit of tokens, so that every arm has the same to do: only the gRPC server ends
    an answer at the end of a turn. Raises PreconditionError if there are too few."""
    candidates = make_prompts(base, 4 * plan.streams, plan.prompt_tokens)
    found = await arm.run(plan.work(STREAMS, candidates))
    full = [prompt for prompt, count in zip(candidates, found.counts, strict=True) if count == plan.output_tokens]
    if len(full) < plan.streams:
        raise PreconditionError(
            f"only {len(full)} of {len(candidates)} prompts get {plan.output_tokens} tokens, {plan.streams} are needed"
        )
    return full[: plan.streams]


async def measure_rounds(
    arms: Sequence[Arm], prompts: Sequence[Prompt], plan: FrontendPlan, note: Callable[[str], None]
) -> dict[str, dict[str, list[Round]]]:
    """Every kind of work by every arm, round by round, without the first round, which is a warm-up."""
    rounds: dict[str, dict[str, list[Round]]] = {
        kind: {arm.name: [] for arm in arms} for kind in (STREAMS, UNARY, SINGLE)
    }
    for kind, results in rounds.items():
        work = plan.work(kind, prompts)
        for number, arm in turns(plan.rounds, arms):
            result = await arm.run(work)
            if number >= 0:
                results[arm.name].append(result)
            note(f"{kind}, round {number + 1} of {plan.rounds}, {arm.name}: {result.tokens_per_s:.0f} tokens/s")
    return rounds


def figures(rounds: Rounds) -> dict[str, Any]:
    """Medians over rounds, medians of the rounds' own ratios with 95 % bootstrap intervals, and the rounds.

    `ttft_overhead_ms` is the difference of the medians over all requests that came one at a time.
    """
    result: dict[str, Any] = {}
    speed: dict[str, dict[str, list[float]]] = {}
    for kind, infix in ((STREAMS, ""), (UNARY, "_unary")):
        speed[kind] = {name: [each.tokens_per_s for each in found] for name, found in rounds[kind].items()}
        for name, values in speed[kind].items():
            result[f"{name}{infix}_tokens_per_s"] = median(values)
    for key, kind, other in (
        ("grpc_ratio_in_process", STREAMS, "in_process"),
        ("grpc_ratio_http", STREAMS, "http"),
        ("grpc_unary_ratio_in_process", UNARY, "in_process"),
        ("grpc_unary_ratio_http", UNARY, "http"),
    ):
        values = ratios(speed[kind]["grpc"], speed[kind][other])
        result |= {key: median(values), f"{key}_interval": interval(values)}
    single = {name: [each.ttft_ms for each in found] for name, found in rounds[SINGLE].items()}
    for name, found in single.items():
        result[f"{name}_ttft_ms"] = median([value for each in found for value in each])
    result["ttft_overhead_ms"] = result["grpc_ttft_ms"] - result["in_process_ttft_ms"]
    own = [median(mine) - median(other) for mine, other in zip(single["grpc"], single["in_process"], strict=True)]
    result["ttft_overhead_ms_interval"] = interval(own)
    short = {
        f"{kind} {name}": sum(len(each.counts) * max(each.counts) - each.tokens for each in found)
        for kind, arms in rounds.items()
        for name, found in arms.items()
    }
    result["missing_tokens"] = {name: count for name, count in short.items() if count}
    return result | {"rounds_tokens_per_s": speed}
