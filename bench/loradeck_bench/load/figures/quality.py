"""Quality of the very answers that were timed: by task, adapter, revision and time, with intervals over rows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loradeck_bench.evaluation.answers import TEXT, Metric
from loradeck_bench.evaluation.classification import class_figures
from loradeck_bench.evaluation.figure import Figure
from loradeck_bench.evaluation.measured import flatten
from loradeck_bench.load.figures.over_time import WINDOWS, window_of
from loradeck_bench.load.figures.summary import BASE
from loradeck_bench.load.plan import Subject
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.rows import COLUMNS
from loradeck_registry.errors import InvalidError

HEADLINES = ("accuracy", "chrf")
"""Of the metrics of a task the one that tables and figures show: the first of these that it has, else its first."""
BOUNDED = 24
"""So many adapters or revisions get intervals; with more of them figures alone are shown."""

_Key = tuple[int, str]
"""A row and an answer to it."""


@dataclass(frozen=True)
class _Scores:
    """All different answers of one task, scored once; any selection of replies is a weighing of these."""

    index: Mapping[_Key, int]
    figures: Mapping[str, Figure]

    def of(self, records: Sequence[RequestRecord], bounded: bool = True) -> dict[str, Any]:
        """Figures of a selection. Their intervals resample rows: two replies to one row are no independent samples."""
        counts = Counter((record.row, record.text) for record in records)
        if not bounded:
            values = {name: self.value(records, name) for name in self.figures}
            return {"answers": counts.total(), "rows": len({row for row, _ in counts}), **values, "intervals": {}}
        rows = {row: place for place, row in enumerate(sorted({row for row, _ in counts}))}
        weights = np.zeros((len(rows), len(self.index)))
        for (row, text), count in counts.items():
            weights[rows[row], self.index[row, text]] = count
        measured = {n: Figure(weights @ f.parts, f.combine, f.how).measured() for n, f in self.figures.items()}
        flat = flatten(measured)
        del flat["methods"]
        return {"answers": counts.total(), "rows": len(rows), **flat}

    def value(self, records: Sequence[RequestRecord], name: str) -> float:
        """One figure of a selection."""
        figure = self.figures[name]
        return float(figure.combine(figure.parts[[self.index[r.row, r.text] for r in records]].sum(axis=0)))


class Quality:
    """Scores the answers in `records`; all `subjects` of a task have the same rows. `metrics` are those of texts.

    Rows without a reference are not scored. Raises InvalidError if a reference is not of a metric's form.
    """

    def __init__(
        self, records: Sequence[RequestRecord], subjects: Mapping[str, Subject], metrics: Sequence[Metric] = TEXT
    ) -> None:
        by_task: dict[str, list[RequestRecord]] = defaultdict(list)
        for record in records:
            if record.ok and subjects[record.adapter].rows[record.row][COLUMNS[record.task][-1]].strip():
                by_task[record.task].append(record)
        self._records = by_task
        self._scores = {task: _score(task, group, subjects, metrics) for task, group in by_task.items()}

    def __bool__(self) -> bool:
        return bool(self._scores)

    @property
    def headline(self) -> dict[str, str]:
        """By task the metric that stands for it."""
        return {
            task: next((name for name in HEADLINES if name in scores.figures), next(iter(scores.figures)))
            for task, scores in self._scores.items()
        }

    def per_task(self) -> dict[str, dict[str, Any]]:
        """Figures of all answers of each task."""
        return {task: scores.of(self._records[task]) for task, scores in self._scores.items()}

    def describe(self, duration: float) -> dict[str, Any]:
        """`quality` of report files; `over_time` has the headlines in windows of a run of `duration` seconds."""
        return {
            "headline": self.headline,
            "methods": {
                task: {name: figure.how for name, figure in scores.figures.items()}
                for task, scores in self._scores.items()
            },
            "per_task": self.per_task(),
            "per_adapter": self._grouped(lambda record: record.adapter or BASE),
            "per_revision": self._grouped(_revision),
            "over_time": self._over_time(duration),
        }

    def headlines(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The headline alone, per task, adapter and revision: metric, value, interval, answers."""
        named = {
            "per_task": lambda record: record.task,
            "per_adapter": lambda record: record.adapter or BASE,
            "per_revision": _revision,
        }
        return {part: self._grouped(key, only_headline=True) for part, key in named.items()}

    def _grouped(self, key: Callable[[RequestRecord], str], only_headline: bool = False) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for task, scores in self._scores.items():
            groups: dict[str, list[RequestRecord]] = defaultdict(list)
            for record in self._records[task]:
                groups[key(record)].append(record)
            bounded = len(groups) <= BOUNDED
            if only_headline:
                name = self.headline[task]
                scores = _Scores(scores.index, {name: scores.figures[name]})
            for group, records in groups.items():
                figures = scores.of(records, bounded)
                found[group] = {"task": task, **({"metric": self.headline[task]} if only_headline else {}), **figures}
        return dict(sorted(found.items()))

    def _over_time(self, duration: float) -> list[dict[str, Any]]:
        windows: list[dict[str, Any]] = []
        for number in range(WINDOWS):
            values: dict[str, float] = {}
            for task, scores in self._scores.items():
                inside = [r for r in self._records[task] if window_of(r.intended, duration) == number]
                if inside:
                    values[task] = scores.value(inside, self.headline[task])
            windows.append({"from_seconds": number * duration / WINDOWS, **values})
        return windows


def _revision(record: RequestRecord) -> str:
    return f"{record.answered_by or BASE}@{record.revision}" if record.revision else record.answered_by or BASE


def _score(
    task: str, records: Sequence[RequestRecord], subjects: Mapping[str, Subject], metrics: Sequence[Metric]
) -> _Scores:
    rows = {record.row: subjects[record.adapter].rows[record.row] for record in records}
    index = {key: place for place, key in enumerate(dict.fromkeys((r.row, r.text) for r in records))}
    gold = [rows[row][COLUMNS[task][-1]] for row, _ in index]
    texts = [text for _, text in index]
    try:
        if task == "classification":
            every = {row["label"] for who in subjects.values() if who.task == task for row in who.rows}
            return _Scores(index, class_figures(gold, texts, sorted(every)))
        figures: dict[str, Figure] = {}
        for metric in metrics:
            figures |= metric(texts, gold)
    except ValueError as error:
        raise InvalidError(str(error), reason="BAD_DATA", field="data") from None
    return _Scores(index, figures)
