"""Measures a swap: keeps a steady load on an alias, moves the alias in the registry, and watches the server follow."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from loradeck_bench.load.generator import Ask, LoadRun
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.run import warm_up
from loradeck_bench.swap import Moments, Target, account
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry, Revision

WaitFlip = Callable[[int], Awaitable[None]]
"""Returns once the server has said that the alias means the revision of this number."""


@dataclass(frozen=True)
class SwapPlan:
    """`load` has one subject, whose adapter is `name@alias`. The alias moves after `before` seconds of load; the load
    goes on for `after` seconds once the server has flipped, at most `patience` seconds without that."""

    name: str
    alias: str
    load: LoadPlan
    before: float = 4.0
    after: float = 4.0
    patience: float = 30.0


async def measure_swap(
    ask: Ask, wait_flip: WaitFlip, registry: Registry, plan: SwapPlan, publish: Callable[[], Revision]
) -> tuple[dict[str, Any], list[RequestRecord]]:
    """Run the load, publish the new revision with `publish`, move the alias to it, and account for every reply.

    `publish` runs in a thread while the load runs; it may return a revision that is there already. The alias stays on
    the new revision. Raises PreconditionError (SAME_REVISION) if that is what the alias means already, and what moving
    the alias raises; a server that never follows is a result, not an error.
    """
    await warm_up(ask, plan.load)
    old = await asyncio.to_thread(registry.resolve, f"{plan.name}@{plan.alias}")
    run = LoadRun(ask)
    load = asyncio.create_task(_keep_loading(run, plan.load))
    try:
        await asyncio.sleep(plan.before)
        publish_started = run.now()
        new = await asyncio.to_thread(publish)
        publish_seconds = run.now() - publish_started
        check_moves(plan, old, new)
        flipped = asyncio.create_task(_flip_time(wait_flip, new.number, run))
        await asyncio.sleep(0.2)  # the watch is open before the move
        started = run.now()
        await asyncio.to_thread(
            registry.move_alias, plan.name, plan.alias, str(new.number), expect=old.number, why="swap measurement"
        )
        written = run.now()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(flipped), plan.patience)
        acknowledged = flipped.result() if flipped.done() else None
        flipped.cancel()
        await asyncio.sleep(plan.after)
        run.stop()
        await load
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    records = run.records
    moments = Moments(started, written, acknowledged)
    result = account(records, Target(old.number, old.digest), Target(new.number, new.digest), moments, publish_seconds)
    return {
        **result,
        "reference": f"{plan.name}@{plan.alias}",
        "load": plan.load.describe(),
        "moved": written,
        "acknowledged": acknowledged,
        "timeline": [
            {
                "sent": record.sent,
                "latency_ms": None if record.latency is None else record.latency * 1000,
                "revision": record.revision,
                "ok": record.ok,
            }
            for record in records
        ],
    }, records


def check_moves(plan: SwapPlan, old: Revision, new: Revision) -> None:
    """Raise PreconditionError if the alias means `new` already: there would be nothing to measure."""
    if new.number == old.number:
        raise PreconditionError(
            f"{plan.name}@{plan.alias} is revision {old.number} already: name another one to move to",
            reason="SAME_REVISION",
            field="to",
        )


async def _keep_loading(run: LoadRun, plan: LoadPlan) -> None:
    if plan.rate is not None:
        await run.open_loop(plan.scheduled(), max_in_flight=plan.max_in_flight)
    else:
        assert plan.concurrency is not None
        await run.closed_loop(plan.requests(), concurrency=plan.concurrency, duration=plan.duration)


async def _flip_time(wait_flip: WaitFlip, number: int, run: LoadRun) -> float:
    await wait_flip(number)
    return run.now()
