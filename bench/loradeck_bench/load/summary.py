"""What a load test adds up to: percentiles, throughput and errors; overall, per adapter and per residency."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from loradeck_bench.load.popularity import shares
from loradeck_bench.load.record import RequestRecord

PERCENTILES = (50, 90, 95, 99)
BASE = "(base)"
"""Name of requests without adapter in tables."""


def spread(seconds: Iterable[float | None]) -> dict[str, float] | None:
    """Count, mean, percentiles (linear interpolation) and maximum in milliseconds of the values that exist; None
    without any."""
    values = np.asarray([value for value in seconds if value is not None], dtype=np.float64) * 1000
    if values.size == 0:
        return None
    marks = np.percentile(values, PERCENTILES)
    return {
        "count": int(values.size),
        "mean": float(values.mean()),
        **{f"p{mark}": float(value) for mark, value in zip(PERCENTILES, marks, strict=True)},
        "max": float(values.max()),
    }


def summarise(records: Sequence[RequestRecord]) -> dict[str, Any]:
    """Figures of a run in the form of report files. Times are of answered requests, from their intended send."""
    return {
        **_figures(records, _window(records)),
        "shares": shares(record.adapter or BASE for record in records),
        "per_adapter": _grouped(records, lambda record: record.adapter or BASE),
        "per_residency": _grouped([record for record in records if record.residency], lambda record: record.residency),
    }


def _window(records: Sequence[RequestRecord]) -> float:
    """Seconds from the first intended send to the last end."""
    ends = [record.end for record in records if record.end is not None]
    return max(ends) - min(record.intended for record in records) if ends else 0.0


def _grouped(records: Sequence[RequestRecord], key: Callable[[RequestRecord], str]) -> dict[str, object]:
    groups: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    # One window for all groups: rates then add up to the overall rate.
    return {name: _figures(groups[name], _window(records)) for name in sorted(groups)}


def _figures(records: Sequence[RequestRecord], window: float) -> dict[str, object]:
    answered = [record for record in records if record.ok]
    failed = [record for record in records if not record.ok]
    return {
        "requests": len(records),
        "ok": len(answered),
        "failed": len(failed),
        "errors": dict(Counter(record.reason or record.status for record in failed).most_common()),
        "seconds": window,
        "requests_per_second": len(answered) / window if window else 0.0,
        "output_tokens_per_second": sum(r.output_tokens for r in answered) / window if window else 0.0,
        "prompt_tokens_per_second": sum(r.prompt_tokens for r in answered) / window if window else 0.0,
        "latency_ms": spread(r.latency for r in answered),
        "ttft_ms": spread(r.ttft for r in answered),
        "tpot_ms": spread(r.tpot for r in answered),
        "schedule_delay_ms": spread(r.delay for r in records),
        "queue_ms": spread(r.queue_seconds for r in answered),
        "load_ms": spread(r.load_seconds for r in answered),
        "revisions": dict(Counter(str(r.revision) for r in answered)),
    }
