"""One evaluation: asks every row, scores what was answered, and keeps what it measured when the run is broken off."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from loradeck_bench.evaluation.answers import TEXT, Metric
from loradeck_bench.evaluation.scoring import Scored, data_digest, score
from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.generator import Ask, LoadRun
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.rows import CATEGORY, COLUMNS, Row, field_names
from loradeck_registry.errors import Kind, UnavailableError

LOST = 8
"""After so many unavailable replies in a row the server counts as gone, and no further row is sent."""


class Evaluation:
    """Quality of one adapter, or of the base, on the rows of one task.

    `ask` sends the row of a record to whatever is evaluated. `labels` are all labels of the data set, sorted.
    """

    def __init__(self, ask: Ask, task: str, rows: Sequence[Row], adapter: str, labels: Sequence[str] = ()) -> None:
        self.task = task
        self.rows = rows
        self.adapter = adapter
        self.labels = list(labels)
        self._lost = 0
        self._scored = Scored({})
        self._run = LoadRun(ask, on_record=self._seen)

    @property
    def records(self) -> list[RequestRecord]:
        """What was asked so far."""
        return self._run.records

    async def run(self, concurrency: int, progress: Callable[[int], None] = lambda done: None) -> str | None:
        """Ask all rows, `concurrency` at a time; `progress` gets the rows done.

        Returns None when all were asked, else in one line why not; figures of the rest are then still to be had. The
        first row goes alone: a server that cannot be reached or an adapter that does not exist is raised as it is.
        """
        planned = self._plan(progress)
        first = RequestRecord(0, self.adapter, self.task, 0, 0.0)
        await self._run.ask(first, self._run.now)
        try:
            await self._run.closed_loop(planned, concurrency=concurrency, duration=float("inf"))
        except asyncio.CancelledError:
            return f"interrupted after {len(self.records)} of {len(self.rows)} rows"
        if len(self.records) < len(self.rows):
            return f"the server went away after {len(self.records)} of {len(self.rows)} rows"
        return None

    def figures(self, metrics: Sequence[Metric] = TEXT) -> dict[str, Any]:
        """Metrics of the answered rows, and how the asking went, in the form of report files.

        Raises UnavailableError if nothing was answered, InvalidError if a gold label is none of the labels or a
        reference is not of a metric's form.
        """
        answered = sorted((record for record in self.records if record.ok), key=lambda record: record.row)
        failed = [record for record in self.records if not record.ok]
        if not answered:
            reasons = ", ".join(sorted({record.reason for record in failed})) or "nothing was asked"
            raise UnavailableError(f"no row was answered: {reasons}", reason="NOTHING_ANSWERED")
        sure = {record.row: record.probability for record in answered if record.probability is not None}
        self._scored = score(
            self.task,
            self.rows,
            {record.row: record.text for record in answered},
            labels=self.labels,
            probabilities=sure if len(sure) == len(answered) else None,
            metrics=metrics,
        )
        ends = [record.end for record in self.records if record.end is not None]
        return {
            **self._scored.figures,
            "task": self.task,
            "adapter": self.adapter,
            "rows": len(self.rows),
            "data_digest": data_digest(self.rows),
            "answered": len(answered),
            "failed": len(failed),
            "errors": dict(Counter(record.reason for record in failed).most_common()),
            "answered_by": [
                {"name": name, "revision": revision, "digest": digest, "rows": count}
                for (name, revision, digest), count in Counter(
                    (r.answered_by, r.revision, r.digest) for r in answered
                ).most_common()
            ],
            "latency_ms": spread(record.latency for record in answered),
            "rows_per_second": len(answered) / max(ends) if ends else 0.0,
        }

    def items(self) -> list[dict[str, Any]]:
        """Every row's gold answer, given answer and status, in the order of the rows; after `figures` also scores."""
        return [self._item(record) for record in sorted(self.records, key=lambda record: record.row)]

    def _item(self, record: RequestRecord) -> dict[str, Any]:
        row = self.rows[record.row]
        item: dict[str, Any] = {
            "row": record.row,
            "gold": row[COLUMNS[self.task][-1]],
            "answer": record.text,
            "status": record.status,
            "reason": record.reason,
        }
        if record.probability is not None:
            item["probability"] = record.probability
        if self.task != "classification":
            names = field_names(row) if self.task == "generate" else COLUMNS[self.task][:-1]
            item |= {"fields": {name: row[name] for name in names}, CATEGORY: row.get(CATEGORY, "")}
        if record.row in self._scored.by_row:
            item["scores"] = self._scored.by_row[record.row]
        return item

    def _plan(self, progress: Callable[[int], None]) -> Iterator[RequestRecord]:
        for index in range(len(self.rows)):
            if self._lost >= LOST:
                return
            progress(len(self.records))
            yield RequestRecord(index, self.adapter, self.task, index, 0.0)

    def _seen(self, record: RequestRecord) -> None:
        self._lost = self._lost + 1 if record.status == Kind.UNAVAILABLE.value else 0
