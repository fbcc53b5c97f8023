"""What a load test is: whom to ask for what, at which rate or concurrency, and the requests that follow from it."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.shape.popularity import choices
from loradeck_bench.load.shape.profile import RateProfile
from loradeck_bench.load.shape.schedule import arrival_times
from loradeck_bench.load.shape.trace import Trace, TraceRow
from loradeck_bench.rows import Row
from loradeck_registry.errors import InvalidError

MAX_TOKENS = {"classification": 1, "short_qa": 48, "long_qa": 192, "generate": 256}
"""Limit of generated tokens per task, the same for every model that is compared."""


@dataclass(frozen=True)
class Subject:
    """Somebody to ask: an adapter reference (empty: the base), a task, and the rows to send."""

    adapter: str
    task: str
    rows: tuple[Row, ...]
    labels: tuple[str, ...] = ()
    """Labels sent with a classification; the base needs them, an adapter has its own."""
    max_tokens: int | None = None
    """None: MAX_TOKENS of the task."""
    template: str | None = None
    """`generate` only: how the fields of a row become a message to a base; None sends the one field as it is. An
    adapter has a template of its own."""
    raw: bool = False
    """`generate` only: the `prompt` of a row is sent as it is, past any template."""

    @property
    def limit(self) -> int:
        """Most tokens to generate."""
        return self.max_tokens or MAX_TOKENS[self.task]


@dataclass(frozen=True)
class LoadPlan:
    """A load test. Exactly one of `rate` (requests per second), `rates` (a rate over time), `trace` (all open loops)
    and `concurrency` (closed loop) is set."""

    subjects: Mapping[str, Subject]
    """By adapter reference."""
    duration: float
    rate: float | None = None
    concurrency: int | None = None
    rates: RateProfile | None = None
    trace: Trace | None = None
    arrivals: str = "poisson"
    """Law of the gaps where a rate is given: `poisson`, `constant` or `gamma:CV`."""
    popularity: str = "uniform"
    seed: int = 0
    max_in_flight: int | None = None
    warm_up: int = 1
    """Requests to each subject before the clock starts; they are not measured."""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(shape is not None for shape in (self.rate, self.rates, self.trace, self.concurrency)) != 1:
            raise InvalidError(
                "give one of a rate, rates, a trace (open loop) and a concurrency (closed loop)", field="rate"
            )
        if self.concurrency is not None and self.concurrency < 1:
            raise InvalidError("the concurrency must be 1 or more", field="concurrency")
        if not self.duration > 0:
            raise InvalidError("the duration must be above zero seconds", field="duration")

    def requests(self, now: Callable[[], float] = lambda: 0.0) -> Iterator[RequestRecord]:
        """Requests in their order, without end, with `intended` 0: who is asked, and with which row of its data. `now`
        is the time in the run, which a drifting popularity follows."""
        sent = dict.fromkeys(self.subjects, 0)
        for index, adapter in enumerate(choices(self.popularity, list(self.subjects), self.seed, now)):
            subject = self.subjects[adapter]
            yield RequestRecord(index, adapter, subject.task, sent[adapter] % len(subject.rows), 0.0)
            sent[adapter] += 1

    def scheduled(self) -> list[RequestRecord]:
        """The requests of an open loop with their intended send times.

        A trace's request asks for as many tokens as the trace's answer had, and takes the row that has the same rank in
        length among the adapter's rows as its prompt has in the trace. Raises InvalidError if nothing falls into the
        duration.
        """
        if self.trace is not None:
            arrivals: list[tuple[float, TraceRow | None]] = list(self.trace.scheduled(self.duration))
        else:
            rate = self.rates if self.rates is not None else self.rate
            assert rate is not None
            arrivals = [(time, None) for time in arrival_times(rate, self.duration, self.arrivals, self.seed)]
        moment = 0.0
        planned: list[RequestRecord] = []
        requests = self.requests(lambda: moment)
        like = _Likeness(self.trace, self.subjects) if self.trace is not None else None
        for moment, row in arrivals:
            record = next(requests)
            record.intended = moment
            if like is not None and row is not None:
                like.apply(record, row)
            planned.append(record)
        if not planned:
            raise InvalidError("no request falls into the duration: raise it, or the rate", field="duration")
        return planned

    def describe(self) -> dict[str, Any]:
        """The settings in the form of report files."""
        return {
            "mode": "open" if self.concurrency is None else "closed",
            "rate": self.rate,
            "rates": self.rates.text if self.rates is not None else None,
            "trace": self._described_trace(),
            "arrivals": self.arrivals if self.rate is not None or self.rates is not None else None,
            "concurrency": self.concurrency,
            "duration_seconds": self.duration,
            "popularity": self.popularity,
            "seed": self.seed,
            "max_in_flight": self.max_in_flight,
            "warm_up": self.warm_up,
            "tasks": {name or "(base)": subject.task for name, subject in self.subjects.items()},
            "max_tokens": {name or "(base)": subject.limit for name, subject in self.subjects.items()},
            **self.notes,
        }

    def _described_trace(self) -> dict[str, Any] | None:
        trace = self.trace
        if trace is None:
            return None
        return {
            "source": trace.source, "rows": len(trace.rows), "skipped_rows": trace.skipped, "speed": trace.speed,
            "token_scale": trace.token_scale,
        }  # fmt: skip


class _Likeness:
    """Makes requests like those of a trace, from rows of other data."""

    def __init__(self, trace: Trace, subjects: Mapping[str, Subject]) -> None:
        self._trace = trace
        self._lengths = sorted(row.prompt_tokens for row in trace.rows)
        self._by_length = {name: _by_length(who.rows) for name, who in subjects.items()}

    def apply(self, record: RequestRecord, row: TraceRow) -> None:
        """Set the record's row and its limit of tokens."""
        ranked = self._by_length[record.adapter]
        rank = bisect_left(self._lengths, row.prompt_tokens) / len(self._lengths)
        record.row = ranked[int(rank * len(ranked))]
        record.max_tokens = self._trace.output_limit(row)


def _by_length(rows: Sequence[Row]) -> list[int]:
    """Numbers of rows, those with the shortest texts first."""
    lengths = [sum(map(len, row.values())) for row in rows]
    return sorted(range(len(rows)), key=lengths.__getitem__)
