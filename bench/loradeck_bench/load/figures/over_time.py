"""A load test over time: rate, latency and the adapters' shares in windows of equal length."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.shape.popularity import shares

WINDOWS = 10


def window_of(moment: float, duration: float) -> int:
    """Number of the window that a moment falls into; what is later falls into the last one."""
    return min(int(moment * WINDOWS / duration), WINDOWS - 1)


def over_time(
    records: Sequence[RequestRecord], duration: float, name: str = "(base)", objective: Objective | None = None
) -> list[dict[str, Any]]:
    """WINDOWS windows over `duration` seconds, a request in that of its intended send; `name` is the base's. Only
    `answered_per_second` and `output_tokens_per_second` count answers, in the window of their end."""
    length = duration / WINDOWS
    groups: list[list[RequestRecord]] = [[] for _ in range(WINDOWS)]
    ended: list[list[RequestRecord]] = [[] for _ in range(WINDOWS)]
    for record in records:
        groups[window_of(record.intended, duration)].append(record)
        if record.ok and record.end is not None and record.end < duration:
            ended[window_of(record.end, duration)].append(record)
    return [
        {
            "from_seconds": number * length,
            "to_seconds": (number + 1) * length,
            "requests": len(group),
            "failed": sum(not record.ok and not record.cut_off for record in group),
            "requests_per_second": len(group) / length,
            "answered_per_second": len(ended[number]) / length,
            "output_tokens_per_second": sum(record.output_tokens for record in ended[number]) / length,
            **({"attained": objective.attained(group) if group else None} if objective else {}),
            "latency_ms": spread((record.latency for record in group if record.ok), bounded=False),
            "ttft_ms": spread((record.ttft for record in group if record.ok), bounded=False),
            "tpot_ms": spread((record.tpot for record in group if record.ok), bounded=False),
            "residency": dict(Counter(record.residency for record in group if record.residency)),
            "shares": shares(record.adapter or name for record in group) if group else {},
        }
        for number, group in enumerate(groups)
    ]
