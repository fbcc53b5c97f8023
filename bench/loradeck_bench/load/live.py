"""A load test as it runs, on a terminal: rates, latencies of the last seconds, adapters, residency, errors."""

import time
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loradeck_bench.load.figures.summary import BASE
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.record import RequestRecord

RECENT = 5.0
"""Seconds that figures look back."""
ADAPTERS = 12
"""Adapters with a line of their own; those asked most."""
PER_SECOND = 2
"""Pictures per second: each takes some milliseconds of the client."""


class LiveView(AbstractContextManager["LiveView"]):
    """Draws on `console` while the block runs, and is gone afterwards; give every record to `seen`."""

    def __init__(self, console: Console, plan: LoadPlan, title: str) -> None:
        self._plan = plan
        self._title = title
        self._times = [record.intended for record in plan.scheduled()] if plan.concurrency is None else []
        self._begin: float | None = None
        self._ended = 0
        self._answered: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._residency: Counter[str] = Counter()
        self._recent: deque[RequestRecord] = deque()
        self._live = Live(self, console=console, refresh_per_second=PER_SECOND, transient=True)

    def seen(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        if record.end is None:
            return
        if self._begin is None:
            self._begin = time.monotonic() - record.end
        self._ended += 1
        name = record.adapter or BASE
        if record.ok:
            self._answered[name] += 1
            self._residency[record.residency or BASE] += 1
        else:
            self._failed[name] += 1
            self._errors[record.reason or record.status] += 1
        self._recent.append(record)
        while self._recent and (self._recent[0].end or 0.0) < record.end - RECENT:
            self._recent.popleft()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __rich__(self) -> RenderableType:
        if self._begin is None:
            return Text(f"{self._title}: warming up", style="dim")
        now = time.monotonic() - self._begin
        # Copies: this runs in the thread of the display.
        recent = [record for record in list(self._recent) if (record.end or 0.0) > now - RECENT]
        sent = bisect_right(self._times, now) if self._times else self._ended + (self._plan.concurrency or 0)
        head = Text(
            f"{self._title}  {min(now, self._plan.duration):.0f} of {self._plan.duration:g} s  sent {sent}  "
            f"under way {max(0, sent - self._ended)}  failed {sum(self._failed.values())}"
        )
        # Padded, since a bar alone does not end its line.
        bar = Padding(ProgressBar(total=self._plan.duration, completed=min(now, self._plan.duration), width=60), 0)
        span = max(min(RECENT, now), 0.5)
        notes = Text(
            f"last {span:.0f} s: {sum(record.ok for record in recent) / span:.1f} answered/s, "
            f"{sum(record.output_tokens for record in recent if record.ok) / span:.0f} tokens/s"
            + "".join(f"  {name} {count}" for name, count in self._residency.most_common())
        )
        errors = [Text(f"{count} failed: {reason}", style="red") for reason, count in self._errors.most_common(4)]
        return Group(head, bar, notes, self._table(recent), *errors)

    def _table(self, recent: Sequence[RequestRecord]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
        table.add_column("adapter", overflow="ellipsis", max_width=28)
        for column in ("answered", "failed", "p50 ms", "p99 ms", "TTFT p50", "TPOT p50"):
            table.add_column(column, justify="right", no_wrap=True)
        groups: dict[str, list[RequestRecord]] = defaultdict(list)
        for record in recent:
            if record.ok:
                groups[record.adapter or BASE].append(record)
        counts = Counter(self._answered) + Counter(self._failed)
        for name, _ in counts.most_common(ADAPTERS):
            group = groups.get(name, [])
            table.add_row(
                name, str(self._answered[name]), str(self._failed[name]),
                _mark([record.latency for record in group], 50), _mark([record.latency for record in group], 99),
                _mark([record.ttft for record in group], 50), _mark([record.tpot for record in group], 50),
            )  # fmt: skip
        return table


def live_view(console: Console, plan: LoadPlan, title: str) -> "AbstractContextManager[LiveView | None]":
    """A view if `console` is a terminal, else nothing."""
    return LiveView(console, plan, title) if console.is_terminal else nullcontext()


def _mark(seconds: Sequence[float | None], percentile: float) -> str:
    values = [value for value in seconds if value is not None]
    return f"{1000 * float(np.percentile(values, percentile)):.0f}" if values else "–"
