"""What all steps of a running study share: its place, its outcomes, its children, and what went wrong."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loradeck_bench.children import Child
from loradeck_bench.demo.progress import Progress
from loradeck_bench.report.units import duration
from loradeck_bench.study.outcomes import Outcome, Outcomes
from loradeck_bench.study.plan import Plan, Planned
from loradeck_bench.study.state import State, StepState


class Work:
    """A study that runs. Its state follows the outcomes; `failed` keeps why a step could not be done this time."""

    def __init__(self, plan: Plan, outcomes: Outcomes, progress: Progress) -> None:
        self.plan = plan
        self.place = plan.place
        self.progress = progress
        self.failed: dict[str, str] = {}
        self._outcomes = outcomes
        self._told = time.monotonic()
        self.state = State(plan, outcomes)

    def start(self, step: Planned, arguments: Sequence[str], *, threads: int | None = None) -> Child:
        """Start a `loradeck` command; its log is named after the step."""
        # Everything that the study reads and writes stays in its folder. Progress bars come in whole lines.
        environment = {"LORADECK_CACHE": str((self.place.root / "cache").absolute()), "COLUMNS": "160"}
        if threads is not None and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(threads)
        log = self.place.logs / f"{step.id.replace('/', '-')}.log"
        return Child.loradeck(step.title, arguments, log, environment=environment)

    def finish(self, step: Planned, arguments: Sequence[str]) -> None:
        """Run a command to its end. Raises ChildFailedError."""
        with self.start(step, arguments) as child:
            while child.poll() is None:
                self.progress.note(f"{step.title}: {' '.join(child.tail())}")
                time.sleep(0.1)
            child.check()

    def keep(self, step: Planned, result: Mapping[str, Any], seconds: float, said: str = "") -> None:
        """Keep what a step brought, and say it."""
        now = time.monotonic()
        self._outcomes.put(
            step.id, Outcome(step.digest, result, seconds, now - self._told, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")
        )
        self._told = now
        self.state = State(self.plan, self._outcomes)
        left, unknown = self.state.seconds_left()
        count = len(self.state.left())
        rest = f"; {count} steps left" + (f", about {duration(left)}" if left and not unknown else "") if count else ""
        self.progress.say(f"{step.title}: {said + ', ' if said else ''}{duration(seconds)}{rest}")

    def fail(self, step: Planned, why: str) -> None:
        """Note in one line why a step failed; what does not depend on it goes on."""
        lines = [line.strip() for line in why.splitlines() if line.strip()]
        why = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
        self.failed[step.id] = why
        self._told = time.monotonic()
        self.progress.say(f"{step.title}: FAILED: {why}")

    def result(self, step: str) -> Mapping[str, Any]:
        """The result of a step that was done."""
        outcome = self.state.steps[step].outcome
        assert outcome is not None
        return outcome.result

    def revision(self, named: str) -> str:
        """The exact reference of the base or run that the step `named` made."""
        return str(self.result(named)["reference"])

    def ready(self, root: str) -> list[StepState]:
        """Steps below `root` that are left, have not failed, and whose needs are done."""
        return [
            one
            for one in self.state.left()
            if one.step.id.startswith(f"{root}/")
            and one.step.id not in self.failed
            and all(self.state.steps[other].state == "done" for other in one.step.after)
        ]


def read_result(path: Path) -> dict[str, Any]:
    """What a command wrote with `--json`."""
    result = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(result, dict)
    return result
