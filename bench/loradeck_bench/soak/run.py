"""A soak from start to end: publish, serve, rehearse, warm up, load, empty, judge."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from loradeck_bench.demo.server import Server
from loradeck_bench.load.churn import Churn
from loradeck_bench.load.flips import Flip
from loradeck_bench.loop import run_fast
from loradeck_bench.serving.stage import Stage, circumstances, stage
from loradeck_bench.soak import cast as casting
from loradeck_bench.soak.cast import ALIAS, Cast
from loradeck_bench.soak.leaks import empty, find_leaks, idle
from loradeck_bench.soak.ledger import SETTLED_SECONDS, Ledger
from loradeck_bench.soak.plan import MOST_GROWTH, MOST_P99_RATIO, SoakPlan
from loradeck_bench.soak.traffic import Traffic
from loradeck_bench.soak.turning import Turning
from loradeck_bench.soak.vitals import Watch, growth, scrape
from loradeck_client import AsyncAdminClient

STEPS = ("make adapters", "start the server", "golden answers", "warm up", "soak", "empty the server and look")


def measure_soak(base: Path, plan: SoakPlan, console: Console) -> dict[str, Any]:
    """Soak a server of its own on the base in the folder `base`. Raises LoradeckError when it cannot be started."""
    started = os.getloadavg()
    with stage(base, console, STEPS) as place:
        progress = place.workplace.progress
        with progress.step(STEPS[0]):
            cast = casting.publish(place, plan)
        with ExitStack() as stack:
            with progress.step(STEPS[1]):
                server = stack.enter_context(place.serve(server_settings(plan)))
            result = run_fast(soak_server(server, place, cast, plan))
            code = server.child.poll()
    result["server_exit_code"] = code
    result["passed"] = not failures(result)
    return {**result, **circumstances(started)}


def server_settings(plan: SoakPlan) -> Mapping[str, object]:
    """Of the server under test."""
    return {
        "slots": plan.slots,
        "host_adapters": plan.host_adapters,
        # Rounding must not decide between two tokens: every reply is compared with one given to a lone request.
        "engine.dtype": "float32",
        "engine.max_model_len": 512,
        "engine.kv_cache_gib": 0.5,
        "limits.concurrent": 64,
        "limits.queue_per_adapter": 64,
        "limits.rate_per_caller": plan.caller_limit,
    }


async def soak_server(server: Server, place: Stage, cast: Cast, plan: SoakPlan) -> dict[str, Any]:
    """Soak a running server."""
    progress = place.workplace.progress
    loop = asyncio.get_running_loop()
    begin = loop.time()

    def now() -> float:
        return loop.time() - begin

    with progress.step(STEPS[2]):
        script = await casting.rehearse(server.address, place, cast, plan)
    traffic = Traffic(server.address, cast, script, plan, now)
    pid = server.child.pid
    async with AsyncAdminClient(server.admin) as operator:
        turning = Turning(place.registry, operator, cast.turned, plan.turn_every)
        copied = [f"{name}@{ALIAS}" for name in cast.names[: plan.copied]]
        churn = Churn.of(place.registry, operator, copied, "publish,move,unload", plan.churn_every)
        ledger = Ledger(cast, script, lambda digest: _original(churn, digest), lambda: _flips(churn, turning))
        with progress.step(STEPS[3]):
            # A server follows the aliases that it is asked for: until then it has nothing to say of their moves.
            for reference in (*copied, *(f"{name}@{ALIAS}" for name in cast.turned)):
                await operator.load(reference)
            # With everything that will come, so that what grows once has grown.
            beside = [asyncio.create_task(turning.run(now)), asyncio.create_task(churn.run(now))]
            await traffic.run(plan.warm_up, None)
            before = await idle(pid, server.metrics)
        watch = Watch(pid, now)
        since = now()
        with progress.step(STEPS[4]):
            beside += [
                asyncio.create_task(watch.run()),
                asyncio.create_task(_settle(ledger, now, progress.note)),
            ]
            loading = asyncio.create_task(traffic.run(plan.seconds, ledger))
            done, _ = await asyncio.wait([loading, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        until = now()
        await asyncio.sleep(SETTLED_SECONDS)
        ledger.settle(now() + SETTLED_SECONDS)
        with progress.step(STEPS[5]):
            await empty(operator)
    leaked = await find_leaks(pid, server.metrics, place.registry, before)
    restarts = scrape(server.metrics).get("loradeck_engine_restarts_total", 0.0)
    counts = ledger.describe()
    counts["crashes"] += int(restarts)
    memory = growth(watch.vitals)
    return {
        **counts,
        "leaked": sum(leaked.values()),
        "leaks": leaked,
        "rss_growth": memory["growth"],
        "memory": memory,
        **_thirds(ledger, since, plan.seconds),
        "minutes": (until - since) / 60,
        "moves": len(turning.flips),
        "moves_not_followed": turning.unheard,
        "churn": {what: sum(one.what == what and not one.error for one in churn.done) for what in churn.operations},
        "churn_failed": [one.error for one in churn.done if one.error][:5],
        "adapters": plan.adapters,
        "slots": plan.slots,
        "host_adapters": plan.host_adapters,
        "dtype": "float32",
    }


def failures(result: Mapping[str, Any]) -> list[str]:
    """What a soak must not have; empty if it passed."""
    found = [
        f"{result[name]} {name.replace('_', ' ')}"
        for name in ("crashes", "hangs", "wrong_tokens", "unexpected", "leaked", "moves_not_followed")
        if result[name]
    ]
    if result["server_exit_code"] is not None:
        found.append(f"the server ended with exit code {result['server_exit_code']}")
    if result["rss_growth"] > MOST_GROWTH:
        found.append(f"memory grew by {result['rss_growth']:.1%}, more than {MOST_GROWTH:.0%}")
    if not result["p99_last"] <= MOST_P99_RATIO * result["p99_first"]:
        found.append(f"p99 in the last third is {result['p99_last'] / result['p99_first']:.2f} of that in the first")
    return found


def _thirds(ledger: Ledger, since: float, seconds: float) -> dict[str, float]:
    """The steady caller's 99th percentile of latency in the first and the last third, in milliseconds."""
    first = [took for intended, took in ledger.times if intended - since < seconds / 3]
    last = [took for intended, took in ledger.times if intended - since >= seconds * 2 / 3]
    p99 = [float(np.percentile(part, 99)) * 1000 if part else float("nan") for part in (first, last)]
    return {"p99_first": p99[0], "p99_last": p99[1]}


def _original(churn: Churn, digest: str) -> str:
    """A copy answers as what it was copied from."""
    for alias in churn.aliases:
        if any(revision.digest == digest for revision in alias.known):
            return alias.first.digest
    return digest


def _flips(churn: Churn, turning: Turning) -> list[Flip]:
    return [*churn.flips, *turning.flips]


async def _settle(ledger: Ledger, now: Callable[[], float], note: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(5)
        ledger.settle(now())
        counts = ledger.describe()
        note(f"{counts['requests']} requests, {counts['replies_checked']} checked, {counts['wrong_tokens']} wrong, "
             f"{counts['crashes']} crashes, {counts['hangs']} hangs")  # fmt: skip
