"""One pass over label tokens against generating a label as text, on one server."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from rich.console import Console

from loradeck_bench.asking import connect
from loradeck_bench.loop import run_fast
from loradeck_bench.serving.adapters import label_task
from loradeck_bench.serving.prompts import Prompt, make_prompts
from loradeck_bench.serving.rounds import interval, median, ratios, turns
from loradeck_bench.serving.stage import Stage, circumstances, stage
from loradeck_client import AsyncClient, Sampling
from loradeck_registry.errors import PreconditionError
from loradeck_tasks.defaults import default_task

STEPS = ("make adapters", "start the server", "measure")
ONE_PASS, GENERATED = "one_pass", "generated"


@dataclass(frozen=True)
class ClassifyPlan:
    """Requests one at a time for latency, and many at once for throughput, in rounds that take turns."""

    rounds: int = 9
    labels: int = 9
    prompt_tokens: int = 200
    label_tokens: tuple[int, ...] = (3, 4)
    """Tokens of a label that is generated as text."""
    single: int = 12
    """Requests of a round that come one at a time."""
    together: int = 128
    """Requests of a round that come together, `concurrency` at a time."""
    concurrency: int = 64


@dataclass(frozen=True)
class Way:
    """One way to a label. `ask` sends a prompt and returns the tokens that the server counted: prompt, and output."""

    name: str
    ask: Callable[[Prompt], Awaitable[tuple[int, int]]]
    output_tokens: int


def measure_classify(base: Path, plan: ClassifyPlan, console: Console) -> dict[str, Any]:
    """Serve an adapter with label tokens and one that generates, of the same rank, and let them take turns.

    Both get the same texts as they are, without a chat template, and the engine has no prefix cache.
    """
    started = os.getloadavg()
    with stage(base, console, STEPS) as place, ExitStack() as stack:
        progress = place.workplace.progress
        with progress.step(STEPS[0]):
            publish_pair(place, plan)
            prompts = make_prompts(base, plan.together, plan.prompt_tokens)
        settings = {
            "engine.max_model_len": plan.prompt_tokens + 16,
            "engine.kv_cache_gib": 0.5,
            "engine.enable_prefix_caching": False,
            "limits.concurrent": plan.concurrency,
            "limits.concurrent_per_adapter": plan.concurrency,
        }
        with progress.step(STEPS[1]):
            server = stack.enter_context(place.serve(settings))
        with progress.step(STEPS[2]):
            result = run_fast(measure_on_server(server.address, prompts, plan, progress.note))
    return {**result, "plan": asdict(plan), **circumstances(started)}


def publish_pair(place: Stage, plan: ClassifyPlan) -> None:
    """The adapters `one-pass` and `generating`, which take texts as they are."""
    plain = {"format": "plain", "system": None}
    place.publish("one-pass", label_task(place.base, plan.labels, **plain), 0)
    place.publish("generating", default_task("short_qa", template="{question}", **plain), 1)


async def measure_on_server(
    address: str, prompts: Sequence[Prompt], plan: ClassifyPlan, note: Callable[[str], None]
) -> dict[str, Any]:
    """Measure both ways on a running server with the adapters `one-pass` and `generating`."""
    latency: dict[str, list[list[float]]] = {}
    speed: dict[str, list[float]] = {}
    async with connect(address) as client:
        ways = ways_to_a_label(client, plan)
        full = await choose_prompts(ways, prompts, plan)
        for number, way in turns(plan.rounds, ways):
            alone = [await _milliseconds(way, prompt) for prompt in full[: plan.single]]
            together = await _requests_per_s(way, full, plan)
            if number >= 0:
                latency.setdefault(way.name, []).append(alone)
                speed.setdefault(way.name, []).append(together)
            note(f"round {number + 1} of {plan.rounds}, {way.name}: {together:.0f} requests/s")
    return {**figures(latency, speed), "prompts": len(full)}


def ways_to_a_label(client: AsyncClient, plan: ClassifyPlan) -> list[Way]:
    """One pass, and generating so many tokens, for each of `plan.label_tokens`."""

    async def classify(prompt: Prompt) -> tuple[int, int]:
        usage = (await client.classify(prompt.text, adapter="one-pass")).usage
        return usage.prompt_tokens, usage.output_tokens

    def generate(tokens: int) -> Callable[[Prompt], Awaitable[tuple[int, int]]]:
        sampling = Sampling(temperature=0.0, max_tokens=tokens)

        async def ask(prompt: Prompt) -> tuple[int, int]:
            usage = (await client.answer_short(prompt.text, adapter="generating", sampling=sampling)).usage
            return usage.prompt_tokens, usage.output_tokens

        return ask

    generated = [Way(f"{GENERATED}_{tokens}", generate(tokens), tokens) for tokens in plan.label_tokens]
    return [Way(ONE_PASS, classify, 0), *generated]


async def choose_prompts(ways: Sequence[Way], prompts: Sequence[Prompt], plan: ClassifyPlan) -> list[Prompt]:
    """The prompts to which every way has its full answer: a generated one may end early. Raises PreconditionError if
    fewer than half of them do, or if the ways do not get the same prompt."""
    found = []
    for prompt in prompts:
        counts = [await way.ask(prompt) for way in ways]
        if {count for count, _ in counts} != {plan.prompt_tokens}:
            raise PreconditionError(f"prompts of {sorted({n for n, _ in counts})} tokens, not {plan.prompt_tokens}")
        if all(output == way.output_tokens for way, (_, output) in zip(ways, counts, strict=True)):
            found.append(prompt)
    if 2 * len(found) < len(prompts):
        raise PreconditionError(
            f"only {len(found)} of {len(prompts)} prompts get answers of {plan.label_tokens} tokens"
        )
    return found


async def _milliseconds(way: Way, prompt: Prompt) -> float:
    start = time.perf_counter()
    await way.ask(prompt)
    return 1000 * (time.perf_counter() - start)


async def _requests_per_s(way: Way, prompts: Sequence[Prompt], plan: ClassifyPlan) -> float:
    places = asyncio.Semaphore(plan.concurrency)

    async def one(prompt: Prompt) -> None:
        async with places:
            await way.ask(prompt)

    start = time.perf_counter()
    await asyncio.gather(*map(one, prompts))
    return len(prompts) / (time.perf_counter() - start)


def figures(latency: Mapping[str, Sequence[Sequence[float]]], speed: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians over rounds; ratios of one pass to the mean of the generating ways, round by round, with intervals."""
    others = [name for name in latency if name != ONE_PASS]
    slow = [[median(found) for found in latency[name]] for name in latency]
    by_name = dict(zip(latency, slow, strict=True))
    generated_ms = [mean(values) for values in zip(*(by_name[name] for name in others), strict=True)]
    generated_speed = [mean(values) for values in zip(*(speed[name] for name in others), strict=True)]
    latency_ratios = ratios(by_name[ONE_PASS], generated_ms)
    speed_ratios = ratios(speed[ONE_PASS], generated_speed)
    return {
        "one_pass_latency_ms": median(by_name[ONE_PASS]),
        "generated_latency_ms": median(generated_ms),
        "latency_ratio": median(latency_ratios),
        "latency_ratio_interval": interval(latency_ratios),
        "one_pass_requests_per_s": median(speed[ONE_PASS]),
        "generated_requests_per_s": median(generated_speed),
        "throughput_ratio": median(speed_ratios),
        "throughput_ratio_interval": interval(speed_ratios),
        "by_way": {
            name: {"latency_ms": median(by_name[name]), "requests_per_s": median(speed[name])} for name in latency
        },
    }
