"""The whole fuzzing of one server and of the registry's reader, as one result."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from loradeck_bench.fuzz.attempts import Names
from loradeck_bench.fuzz.objects import fuzz_registry
from loradeck_bench.fuzz.sending import Account, fuzz_server
from loradeck_bench.serving.adapters import label_task
from loradeck_bench.serving.stage import Stage, circumstances, stage
from loradeck_tasks.defaults import default_task

STEPS = ("make adapters", "start the server", "mutated requests", "mutated registry objects")
NAMES = Names(("clf",), ("short",), ("long",), ("free",))
MOST_GROWTH = 0.1
"""Of memory, from the first third of the looks after warm-up to the last: allocators take their time to settle."""


@dataclass(frozen=True)
class FuzzPlan:
    """How much of what."""

    requests: int = 100_000
    objects: int = 10_000
    seed: int = 1
    at_once: int = 32


@dataclass(frozen=True)
class Target:
    """A server that runs already. `pid`: of its process, if its memory is to be watched."""

    address: str
    admin: str
    names: Names
    pid: int | None = None


def measure_fuzz(base: Path, plan: FuzzPlan, console: Console, target: Target | None = None) -> dict[str, Any]:
    """Fuzz `target`, or a server of its own on the base in the folder `base`; and the reader, with a registry.

    Raises LoradeckError when the server cannot be started.
    """
    started = os.getloadavg()
    with stage(base, console, STEPS) as place:
        progress = place.workplace.progress
        with progress.step(STEPS[0]):
            _publish(place)
        requests: dict[str, Any] = {}
        if plan.requests:
            with _server(place, target) as found, progress.step(STEPS[2]):
                account = asyncio.run(
                    fuzz_server(
                        found.address, found.admin, found.names, requests=plan.requests, seed=plan.seed,
                        at_once=plan.at_once, pid=found.pid,
                        progress=lambda n: progress.note(f"{n} of {plan.requests}"),
                    )
                )  # fmt: skip
            requests = account.result()
        objects: dict[str, Any] = {}
        if plan.objects:
            with progress.step(STEPS[3]), tempfile.TemporaryDirectory(prefix="loradeck-fuzz-") as scratch:
                objects = _objects(place, Path(scratch), plan).result()
    result = {"seed": plan.seed, **requests, "registry": objects}
    result["passed"] = not failures(result)
    return {**result, **circumstances(started)}


def failures(result: dict[str, Any]) -> list[str]:
    """What went wrong, in words; empty if nothing."""
    found = []
    for what, part in (("requests", result), ("registry objects", result["registry"])):
        if not part or "requests" not in part:
            continue
        counts = ("crashes", "hangs", "wrong_tokens", "leaked")
        found += [f"{part[name]} {name.replace('_', ' ')} ({what})" for name in counts if part[name]]
        growth = part["rss_growth"]
        if growth is not None and growth > MOST_GROWTH:
            found.append(f"memory grew by {growth:.1%} ({what})")
    return found


def _publish(place: Stage) -> None:
    place.publish("clf", label_task(place.base, 4), seed=1, alias="prod")
    place.publish("clf", label_task(place.base, 4), seed=2)
    place.publish("short", default_task("short_qa", max_tokens=8), seed=3, alias="prod")
    place.publish("long", default_task("long_qa", max_tokens=8), seed=4, alias="prod")
    place.publish("free", default_task("generate", max_tokens=8), seed=5, alias="prod")
    registry = place.registry
    registry.move_alias("clf", "canary", {"1": 90, "2": 10}, why="shares")
    revision = registry.resolve("clf@1")
    registry.attach(revision, "note", {"text": "a note"})
    registry.attach(revision, "evaluation", {"metrics": {"accuracy": 0.9}, "data": "none"})
    registry.protect("short", "prod", ["accuracy >= 0.5"])
    registry.hold([revision.digest], "fuzz")


@contextmanager
def _server(place: Stage, target: Target | None) -> Iterator[Target]:
    if target is not None:
        yield target
        return
    settings = {
        "slots": 2,
        "host_adapters": 8,
        "engine.max_model_len": 256,
        "engine.kv_cache_gib": 0.25,
        "limits.max_tokens": 16,
        # Pins and loads of the operators' door must not make every other request wait.
        "limits.load_wait_seconds": 1,
        "limits.default_deadline_seconds": 10,
        "limits.max_deadline_seconds": 15,
        "log_level": "error",
    }
    with place.workplace.progress.step(STEPS[1]):
        context = place.serve(settings)
        server = context.__enter__()
    try:
        yield Target(server.address, server.admin, NAMES, server.child.pid)
        server.child.check()
    finally:
        context.__exit__(None, None, None)


def _objects(place: Stage, scratch: Path, plan: FuzzPlan) -> Account:
    progress = place.workplace.progress
    return fuzz_registry(
        place.workplace.registry, scratch, objects=plan.objects, seed=plan.seed,
        progress=lambda n: progress.note(f"{n} of {plan.objects}"),
    )  # fmt: skip
