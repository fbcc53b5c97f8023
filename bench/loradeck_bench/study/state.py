"""How far a study is: what is done, what is left, what cannot be done, and how long the rest takes."""

from dataclasses import dataclass

from loradeck_bench.study.outcomes import Outcome, Outcomes
from loradeck_bench.study.plan import Plan, Planned


@dataclass(frozen=True)
class StepState:
    """A step and how it stands: `done`, `left`, or `blocked` (then `why`)."""

    step: Planned
    state: str
    outcome: Outcome | None = None
    why: str = ""
    estimate: float | None = None
    """Seconds it will take: what it took before with other inputs, else what the study file expects, else what
    `train plan` said of the run."""


class State:
    """The state of every step of a plan, from the outcomes that are there."""

    def __init__(self, plan: Plan, outcomes: Outcomes) -> None:
        self.plan = plan
        self.steps: dict[str, StepState] = {}
        for step in plan.steps.values():
            outcome = outcomes.get(step.id, step.digest)
            why = step.blocked or next(
                (f"needs {other}, which cannot be done" for other in step.after if self._blocked(other)), ""
            )
            estimate = None if outcome else self._estimate(step, outcomes)
            state = "done" if outcome else "blocked" if why else "left"
            self.steps[step.id] = StepState(step, state, outcome, "" if outcome else why, estimate)

    def left(self) -> list[StepState]:
        """What can and must still be done."""
        return [one for one in self.steps.values() if one.state == "left"]

    def seconds_left(self) -> tuple[float, int]:
        """Estimated seconds of what is left, trainings side by side as the study says, and how many steps have no
        estimate. Bases are too short to count."""
        left = [one for one in self.left() if not one.step.id.startswith("bases/")]
        known = [one for one in left if one.estimate is not None]
        trainings = sum(one.estimate or 0.0 for one in known if one.step.id.startswith("runs/"))
        others = sum(one.estimate or 0.0 for one in known if not one.step.id.startswith("runs/"))
        return trainings / self.plan.study.at_once + others, len(left) - len(known)

    def wall_seconds(self) -> float:
        """What the steps that are done took."""
        return sum(one.outcome.wall_seconds for one in self.steps.values() if one.outcome is not None)

    @staticmethod
    def _estimate(step: Planned, outcomes: Outcomes) -> float | None:
        known = outcomes.last_seconds(step.id) or step.expected
        planned = outcomes.get(f"plans/{step.name}", step.digest) if known is None else None
        return known if planned is None else float(planned.result["seconds"])

    def _blocked(self, step: str) -> bool:
        return self.steps[step].state == "blocked"
