"""What a load test is: whom to ask for what, at which rate or concurrency, and the requests that follow from it."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loradeck_bench.load.popularity import choices
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.schedule import Arrivals, arrival_times
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

    @property
    def limit(self) -> int:
        """Most tokens to generate."""
        return self.max_tokens or MAX_TOKENS[self.task]


@dataclass(frozen=True)
class LoadPlan:
    """A load test. Exactly one of `rate` (requests per second, open loop) and `concurrency` (closed loop) is set."""

    subjects: Mapping[str, Subject]
    """By adapter reference."""
    duration: float
    rate: float | None = None
    concurrency: int | None = None
    arrivals: Arrivals = "poisson"
    popularity: str = "uniform"
    seed: int = 0
    max_in_flight: int | None = None
    warm_up: int = 1
    """Requests to each subject before the clock starts; they are not measured."""
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.concurrency is None):
            raise InvalidError("give either a rate (open loop) or a concurrency (closed loop)", field="rate")
        if self.concurrency is not None and self.concurrency < 1:
            raise InvalidError("the concurrency must be 1 or more", field="concurrency")
        if not self.duration > 0:
            raise InvalidError("the duration must be above zero seconds", field="duration")

    def requests(self) -> Iterator[RequestRecord]:
        """Requests in their order, without end, with `intended` 0: who is asked, and with which row of its data."""
        sent = dict.fromkeys(self.subjects, 0)
        for index, adapter in enumerate(choices(self.popularity, list(self.subjects), self.seed)):
            subject = self.subjects[adapter]
            yield RequestRecord(index, adapter, subject.task, sent[adapter] % len(subject.rows), 0.0)
            sent[adapter] += 1

    def scheduled(self) -> list[RequestRecord]:
        """The requests of an open loop with their intended send times."""
        assert self.rate is not None
        times = arrival_times(self.rate, self.duration, self.arrivals, self.seed)
        planned = list(itertools.islice(self.requests(), len(times)))
        for record, time in zip(planned, times, strict=True):
            record.intended = time
        return planned

    def describe(self) -> dict[str, Any]:
        """The settings in the form of report files."""
        return {
            "mode": "open" if self.rate is not None else "closed",
            "rate": self.rate,
            "arrivals": self.arrivals if self.rate is not None else None,
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
