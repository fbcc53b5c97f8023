"""More adapters than slots: time to first token in an open loop, over the number of adapters."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from loradeck_bench.asking import Asker, connect
from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.figures.summary import summarise
from loradeck_bench.load.generator import Ask, LoadRun
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.run import warm_up
from loradeck_bench.loop import run_fast
from loradeck_bench.serving.prompts import make_prompts, prompt_subjects
from loradeck_bench.serving.rounds import turns
from loradeck_bench.serving.stage import Stage, circumstances, stage
from loradeck_client import AsyncClient, Sampling
from loradeck_registry.errors import PreconditionError
from loradeck_tasks.defaults import default_task

AT_ONCE = 8
"""Adapters that are asked at a time so that they are loaded."""
STEPS = ("make adapters", "start the server", "measure")


@dataclass(frozen=True)
class CliffPlan:
    """What is measured: `multiples` of `slots` adapters, at `share` of the saturation with most adapters."""

    slots: int = 32
    multiples: tuple[int, ...] = (1, 4, 16)
    seconds: float = 30.0
    """Of load for each row, in `stretches` that take turns with those of the other rows."""
    stretches: int = 3
    saturation_seconds: float = 8.0
    share: float = 0.6
    concurrency: int = 64
    """Requests under way while the saturation is measured."""
    prompt_tokens: int = 100
    max_tokens: int = 32
    prompts: int = 512


def measure_cliff(base: Path, plan: CliffPlan, console: Console) -> dict[str, Any]:
    """Make the adapters, serve, and measure. `rows` has `adapters`, `slots`, `ttft_p50_ms`, `ttft_p99_ms`.

    Every adapter fits into the server's host memory and has been asked before it is measured: what is measured is the
    sharing of slots, not loading.
    """
    started = os.getloadavg()
    with stage(base, console, STEPS) as place:
        names = [f"cliff-{number}" for number in range(plan.slots * max(plan.multiples))]
        with place.workplace.progress.step(STEPS[0]):
            for number, name in enumerate(names):
                place.publish(name, default_task("generate"), number)
        result = _serve_and_measure(place, names, plan)
    return {**result, **circumstances(started)}


def _serve_and_measure(place: Stage, names: Sequence[str], plan: CliffPlan) -> dict[str, Any]:
    progress = place.workplace.progress
    settings = {
        "slots": plan.slots,
        "host_adapters": len(names),
        "engine.max_model_len": 512,
        "engine.kv_cache_gib": 0.5,
        "limits.concurrent": 64,
    }
    texts = [prompt.text for prompt in make_prompts(place.base.folder, plan.prompts, plan.prompt_tokens)]
    with ExitStack() as stack:
        with progress.step(STEPS[1]):
            server = stack.enter_context(place.serve(settings))
        with progress.step(STEPS[2]):
            return run_fast(measure_on_server(server.address, names, texts, plan, progress.say))


async def measure_on_server(
    address: str, names: Sequence[str], prompts: Sequence[str], plan: CliffPlan, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure adapters that a running server knows by `names`. The saturation with all of them sets the rate of every
    row: with fewer than slots it is higher, since more requests share an adapter and none has to wait for a slot."""
    async with connect(address) as client:
        await ask_each(client, names, prompts[0])

        async def saturation(adapters: int) -> float:
            subjects = prompt_subjects(names[:adapters], prompts, plan.max_tokens)
            load = LoadPlan(subjects, plan.saturation_seconds, concurrency=plan.concurrency, warm_up=0)
            found = await find_saturation(Asker(client, subjects), load)
            say(f"{adapters} adapters: saturation {found:.1f} requests/s")
            return found

        first = await saturation(plan.slots)
        last = await saturation(plan.slots * max(plan.multiples))
        rate = plan.share * last
        records: dict[int, list[RequestRecord]] = {multiple: [] for multiple in plan.multiples}
        # Warm-up is what has been asked so far.
        for number, multiple in turns(plan.stretches, plan.multiples, warm_up=False):
            subjects = prompt_subjects(names[: multiple * plan.slots], prompts, plan.max_tokens)
            load = LoadPlan(subjects, plan.seconds / plan.stretches, rate=rate, popularity="uniform", seed=number)
            run = LoadRun(Asker(client, subjects))
            await run.open_loop(load.scheduled())
            records[multiple] += run.records
        rows = [cliff_row(found, multiple * plan.slots, plan.slots, rate) for multiple, found in records.items()]
    return {
        "rows": rows,
        "saturation_requests_per_s": last,
        "saturation_as_many_as_slots_requests_per_s": first,
        "share_of_saturation": plan.share,
        "rate_requests_per_s": rate,
        "prompt_tokens": plan.prompt_tokens,
        "max_tokens": plan.max_tokens,
        "p99_ratio": cliff_ratio(rows),
    }


async def ask_each(client: AsyncClient, names: Sequence[str], prompt: str) -> None:
    """One short request to each adapter, so that all of them are in the server's memory."""
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(name: str) -> None:
        async with places:
            await client.generate(prompt=prompt, adapter=name, sampling=Sampling(max_tokens=1)).result()

    await asyncio.gather(*map(ask, names))


async def find_saturation(ask: Ask, plan: LoadPlan) -> float:
    """Requests per second that are answered in a closed loop. Raises PreconditionError if none is."""
    assert plan.concurrency is not None
    await warm_up(ask, plan)
    run = LoadRun(ask)
    await run.closed_loop(plan.requests(), concurrency=plan.concurrency, duration=plan.duration)
    # Without the tail, in which fewer and fewer requests are under way.
    within = sum(record.ok and record.end is not None and record.end <= plan.duration for record in run.records)
    if not within:
        reasons = summarise(run.records)["errors"]
        raise PreconditionError(f"the server answered nothing within {plan.duration:g} s: {reasons or 'too slow'}")
    return within / plan.duration


def cliff_row(records: Sequence[RequestRecord], adapters: int, slots: int, rate: float) -> dict[str, Any]:
    """One row of the result from its requests, sent at `rate`. Raises PreconditionError if nothing was answered."""
    summary = summarise(records)
    times = summary["ttft_ms"]
    if times is None:
        raise PreconditionError(f"no request to {adapters} adapters was answered: {summary['errors']}")
    queue = spread(record.queue_seconds for record in records if record.ok)
    assert queue is not None
    return {
        "adapters": adapters,
        "slots": slots,
        "ttft_p50_ms": times["p50"],
        "ttft_p99_ms": times["p99"],
        "queue_p99_ms": queue["p99"],
        "latency_p50_ms": summary["latency_ms"]["p50"],
        # Little's law.
        "in_flight": rate * summary["latency_ms"]["mean"] / 1000,
        "requests": summary["requests"],
        "failed": summary["failed"],
        "client_delay_p99_ms": summary["schedule_delay_ms"]["p99"],
    }


def cliff_ratio(rows: Sequence[dict[str, Any]]) -> float:
    """p99 of the row with the most adapters over p99 of the row with the fewest."""
    ordered = sorted(rows, key=lambda row: row["adapters"])
    return float(ordered[-1]["ttft_p99_ms"] / ordered[0]["ttft_p99_ms"])
