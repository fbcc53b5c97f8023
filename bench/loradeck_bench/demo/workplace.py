"""Where a demo works: its output folder, the commands it runs there, and how it waits for them."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from loradeck_bench.children import Child
from loradeck_bench.demo.progress import Progress


@dataclass
class Workplace:
    """Folders of one demo, and the way to run `loradeck` commands in it."""

    output: Path
    progress: Progress
    environment: dict[str, str] = field(default_factory=dict)
    """Added to the environment of every child."""

    @property
    def registry(self) -> Path:
        """Folder of the demo's registry."""
        return self.output / "registry"

    @property
    def logs(self) -> Path:
        """One log per child."""
        return self.output / "logs"

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a `loradeck` command; its log is named after `name`."""
        log = self.logs / f"{name.replace(' ', '-')}.log"
        return Child.loradeck(name, arguments, log, environment={**self.environment, **(environment or {})})

    def run(self, commands: Mapping[str, Sequence[str]], *, at_once: int = 1) -> dict[str, float]:
        """Run `loradeck` commands to their end, `at_once` of them side by side, each with its share of the cores;
        returns the seconds of each.

        Raises ChildFailedError as soon as one fails; the others are then stopped.
        """
        side_by_side = max(1, min(at_once, len(commands)))
        threads = {"OMP_NUM_THREADS": str(max(1, cores() // side_by_side))} if side_by_side > 1 else {}
        waiting = list(commands.items())
        running: list[Child] = []
        seconds: dict[str, float] = {}
        with ExitStack() as stack:
            while waiting or running:
                while waiting and len(running) < side_by_side:
                    name, arguments = waiting.pop(0)
                    running.append(stack.enter_context(self.start(name, arguments, threads)))
                for child in list(running):
                    child.check()
                    if child.poll() is not None:
                        seconds[child.name] = time.monotonic() - child.started
                        running.remove(child)
                self.progress.note(" | ".join(f"{child.name}: {' '.join(child.tail())}" for child in running))
                time.sleep(0.2)
        return seconds


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
