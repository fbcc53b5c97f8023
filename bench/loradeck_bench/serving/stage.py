"""Where a benchmark of serving runs: a folder with a registry of random adapters, and servers on it."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from loradeck_bench.demo.progress import Progress
from loradeck_bench.demo.server import Server, serving
from loradeck_bench.demo.workplace import Workplace
from loradeck_bench.machine import machine, versions
from loradeck_bench.serving.adapters import publish_random
from loradeck_registry.bases.resolve import ResolvedBase, resolve_base
from loradeck_registry.registry import Registry, Revision
from loradeck_tasks.task import Task

PREFIX = "LORADECK_SERVE_"


@dataclass(frozen=True)
class Stage:
    """One benchmark's folder, registry and base. It is gone with everything in it when the benchmark ends."""

    workplace: Workplace
    registry: Registry
    base: ResolvedBase

    @property
    def folder(self) -> Path:
        """For files of the benchmark's own."""
        return self.workplace.output

    def log(self, name: str) -> Path:
        """Where a child of the benchmark's own writes."""
        return self.workplace.logs / f"{name}.log"

    def publish(self, name: str, task: Task, seed: int, *, alias: str | None = None) -> Revision:
        """A random adapter of `task`; two seeds give different answers."""
        return publish_random(self.registry, self.base, name, task, seed=seed, alias=alias)

    @contextmanager
    def serve(self, settings: Mapping[str, object]) -> Iterator[Server]:
        """`loradeck serve` on the base and the registry, with `settings` by their names in its configuration."""
        with serving(self._workplace(settings), f"dir:{self.base.folder}", "server") as server:
            yield server

    def _workplace(self, settings: Mapping[str, object]) -> Workplace:
        given = {"cache": self.folder / "cache", "log_level": "warning", **settings}
        environment = {PREFIX + name.replace(".", "__").upper(): str(value) for name, value in given.items()}
        return Workplace(self.folder, self.workplace.progress, {**self.workplace.environment, **environment})


@contextmanager
def stage(base: Path, console: Console, steps: tuple[str, ...]) -> Iterator[Stage]:
    """A stage on the base in the folder `base`, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="loradeck-bench-") as folder:
        workplace = Workplace(Path(folder), Progress(console, steps))
        registry = Registry.init(workplace.registry, cache=workplace.output / "writer-cache")
        yield Stage(workplace, registry, resolve_base(f"dir:{base}", registry))


def circumstances(started: tuple[float, float, float]) -> dict[str, Any]:
    """What a result was measured on, with the load averages (1, 5, 15 min) when it started and now: on a machine that
    does other things at the same time the figures say little."""
    return {
        "machine": machine(),
        "versions": versions(),
        "load_average_before": list(started),
        "load_average_after": list(os.getloadavg()),
    }
