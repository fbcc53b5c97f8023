"""A load test over time: rate, latency and the adapters' shares in windows of equal length."""

from collections import Counter
from collections.abc import Sequence

from loradeck_bench.load.popularity import shares
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.summary import spread

WINDOWS = 10


def over_time(records: Sequence[RequestRecord], duration: float, name: str = "(base)") -> list[dict[str, object]]:
    """WINDOWS windows over `duration` seconds, a request in that of its intended send; `name` is the base's."""
    length = duration / WINDOWS
    groups: list[list[RequestRecord]] = [[] for _ in range(WINDOWS)]
    for record in records:
        groups[min(int(record.intended / length), WINDOWS - 1)].append(record)
    return [
        {
            "from_seconds": number * length,
            "requests": len(group),
            "failed": sum(not record.ok for record in group),
            "requests_per_second": len(group) / length,
            "latency_ms": spread(record.latency for record in group if record.ok),
            "ttft_ms": spread(record.ttft for record in group if record.ok),
            "residency": dict(Counter(record.residency for record in group if record.residency)),
            "shares": shares(record.adapter or name for record in group) if group else {},
        }
        for number, group in enumerate(groups)
    ]
