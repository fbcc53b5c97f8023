"""Whether the load test itself was the bottleneck: how late its event loop ran and how much of a core it took."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.record import RequestRecord

TICK = 0.02
"""Seconds between two looks at the event loop."""
LATE_MS = 20.0
"""A p99 of lateness above this, of sends or of the event loop, counts against the client."""
BUSY = 0.8
"""So much of a core counts against it too: an event loop is one thread."""


@dataclass
class Vitals:
    """Of one client process while it sent."""

    lags: list[float] = field(default_factory=list)
    """Seconds by which the event loop was late, at every tick."""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@asynccontextmanager
async def watched() -> AsyncIterator[Vitals]:
    """Vitals of this process and its running event loop while the block runs; whole when it is left."""
    vitals = Vitals()
    wall, cpu = time.monotonic(), time.process_time()
    watching = asyncio.create_task(_watch(vitals.lags))
    try:
        yield vitals
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        vitals.wall_seconds, vitals.cpu_seconds = time.monotonic() - wall, time.process_time() - cpu


async def _watch(lags: list[float]) -> None:
    while True:
        due = time.monotonic() + TICK
        await asyncio.sleep(TICK)
        lags.append(max(0.0, time.monotonic() - due))


def client_of(records: Sequence[RequestRecord], vitals: Sequence[Vitals], *, limited: bool = False) -> dict[str, Any]:
    """`client` of report files: what its processes took, how late requests were sent, and a verdict.

    Late sends do not count where the client's pool was `limited` on purpose.
    """
    delay = spread((record.delay for record in records), bounded=False)
    lag = spread((lag for one in vitals for lag in one.lags), bounded=False)
    shares = [one.cpu_seconds / one.wall_seconds if one.wall_seconds else 0.0 for one in vitals]
    late = None if limited or delay is None else delay["p99"]
    signs = [
        *([f"requests were sent {late:.0f} ms late (p99)"] if late is not None and late > LATE_MS else []),
        *([f"its event loop ran {lag['p99']:.0f} ms late (p99)"] if lag and lag["p99"] > LATE_MS else []),
        *([f"a process took {max(shares):.0%} of a core"] if shares and max(shares) > BUSY else []),
    ]
    return {
        "processes": len(vitals),
        "cpu_shares": shares,
        "event_loop_lag_ms": lag,
        "bottleneck": bool(signs),
        "verdict": f"the client may be the bottleneck: {', '.join(signs)}; try more --processes, or other cores"
        if signs
        else f"the client was not the bottleneck: {len(vitals)} process{'es' if len(vitals) != 1 else ''}, "
        f"at most {max(shares, default=0.0):.0%} of a core, event loop late p99 {lag['p99'] if lag else 0.0:.1f} ms",
    }
