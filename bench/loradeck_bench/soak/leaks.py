"""What must not stay behind when the load is over: slots, places, leases, files, tasks, requests."""

import asyncio
import time
from dataclasses import dataclass

from loradeck_bench.soak.vitals import look, scrape
from loradeck_client import AsyncAdminClient
from loradeck_registry.collection.leases import read_leases
from loradeck_registry.errors import NotFoundError
from loradeck_registry.registry import Registry

_PATIENCE = 20.0
FILES = 8
"""Descriptors more than at the baseline that are none of a leak: connections that are just being closed."""
TASKS = 2
_NOTHING = {
    "loradeck_requests_running": "request in the engine",
    "loradeck_requests_waiting": "request in the queue",
    "loradeck_engine_requests_running": "request in the engine's batch",
    "loradeck_engine_requests_waiting": "request in the engine's queue",
    "loradeck_slots_used": "slot",
    "loradeck_adapters_resident": "place in host memory",
}
"""Gauges that are 0 on a server without load and without adapters, and what a leak of each is called."""


@dataclass(frozen=True)
class Idle:
    """A server without load, before and after: open files of all its processes, tasks of its event loop."""

    files: int
    tasks: int


async def idle(pid: int, metrics: str) -> Idle:
    """Wait until the server has nothing to do, and look."""
    await _settled(metrics, ("loradeck_requests_running", "loradeck_requests_waiting"))
    found = await asyncio.to_thread(look, pid, 0.0)
    return Idle(sum(found.files.values()), int((await asyncio.to_thread(scrape, metrics))["loradeck_tasks"]))


async def empty(operator: AsyncAdminClient) -> None:
    """Unload every adapter."""
    for adapter in await operator.list():
        try:
            await operator.unload(f"{adapter.name}@{adapter.revision}")
        except NotFoundError:
            continue


async def find_leaks(pid: int, metrics: str, registry: Registry, before: Idle) -> dict[str, int]:
    """What is left on a server that was emptied, by kind; empty when nothing leaked."""
    left = await _settled(metrics, tuple(_NOTHING))
    found = {_NOTHING[name]: int(value) for name, value in left.items() if value}
    if leases := await _leases(registry):
        found["lease in the registry"] = leases
    if parts := len(registry._store.unfinished()):
        found["unfinished write in the registry"] = parts
    after = await _calm(pid, metrics, before)
    if (files := after.files - before.files) > FILES:
        found["open file"] = files
    if (tasks := after.tasks - before.tasks) > TASKS:
        found["task"] = tasks
    return found


async def _settled(metrics: str, names: tuple[str, ...]) -> dict[str, float]:
    """Gauges once they are all 0, or as they are when patience ends."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        now = await asyncio.to_thread(scrape, metrics)
        values = {name: now.get(name, 0.0) for name in names}
        if not any(values.values()) or time.monotonic() > deadline:
            return values
        await asyncio.sleep(1.1)


async def _calm(pid: int, metrics: str, before: Idle) -> Idle:
    """The idle server once it has no more tasks than `before`, or as it is when patience ends: the gauge is of the last
    second, and may still count those that ended the unloading."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        after = await idle(pid, metrics)
        if after.tasks - before.tasks <= TASKS or time.monotonic() > deadline:
            return after
        await asyncio.sleep(1.1)


async def _leases(registry: Registry) -> int:
    """Leases of servers, once there are none or when patience ends."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        held = await asyncio.to_thread(read_leases, registry._store)
        count = sum(lease.holder.startswith("server-") for lease in held)
        if not count or time.monotonic() > deadline:
            return count
        await asyncio.sleep(0.5)
