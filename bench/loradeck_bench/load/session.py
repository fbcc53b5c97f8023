"""A load test as a whole: from one process or several, with churn beside it, its answers scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loradeck_bench.asking import Asking
from loradeck_bench.load.churn import Churn
from loradeck_bench.load.churn_account import account, ask_golden
from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.processes import send_from
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.run import Beside, Sent, send, summary_of, warm_up

if TYPE_CHECKING:
    # Scoring needs an extra that asking does not.
    from loradeck_bench.evaluation.answers import Metric
    from loradeck_bench.load.figures.quality import Quality


@dataclass(frozen=True)
class Session:
    """How plans are sent, and what is made of their records."""

    asking: Asking
    processes: int = 1
    objective: Objective | None = None
    metrics: "Sequence[Metric] | None" = None
    """Of the answers' texts; None: answers are not scored."""

    async def send(
        self,
        plan: LoadPlan,
        on_record: Callable[[RequestRecord], None] = lambda record: None,
        churn: Churn | None = None,
    ) -> Sent:
        """Warm up and send `plan`; aliases that churn moved are back when this returns, and rows that only copies
        answered were put to the first revision too. A cancelled run returns what it measured. Raises what the warm-up
        raises."""
        try:
            sent = await self._send(plan, on_record, churn.run if churn else None)
        finally:
            if churn:
                await churn.restore()
        if churn and not sent.unfinished:
            await ask_golden(self.asking, churn, sent.records)
        return sent

    async def _send(self, plan: LoadPlan, on_record: Callable[[RequestRecord], None], beside: Beside | None) -> Sent:
        async with self.asking.opened() as ask:
            await warm_up(ask, plan)
            if self.processes == 1:
                return await send(ask, plan, on_record, beside=beside)
        # Each of them needs a connection, so one request, of its own.
        each = replace(plan, warm_up=min(1, plan.warm_up))
        return await send_from(self.asking, each, self.processes, on_record, beside=beside)

    def summary(self, plan: LoadPlan, sent: Sent, churn: Churn | None = None) -> dict[str, Any]:
        """All figures of what was sent, in the form of report files."""
        summary = summary_of(plan, sent, self.objective)
        if self.metrics is not None and (quality := self.quality(sent.records)):
            summary["quality"] = quality.describe(plan.duration)
        if churn is not None:
            summary["churn"] = account(churn, sent.records)
        return summary

    def quality(self, records: Sequence[RequestRecord]) -> "Quality":
        """Of the answers in `records`; `metrics` must be there."""
        from loradeck_bench.load.figures.quality import Quality

        return Quality(records, self.asking.subjects, self.metrics or ())
