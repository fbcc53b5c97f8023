"""A server on paper: one queue, a fixed time per request, computed without waiting."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from loradeck_bench.load.record import OK, RequestRecord
from loradeck_bench.load.shape.schedule import arrival_times


@dataclass
class PaperServer:
    """Serves one request at a time in `1 / capacity` seconds; refuses those that would wait longer than `patience`."""

    capacity: float
    patience: float = float("inf")
    seconds: float = 20.0
    rates: list[float] = field(default_factory=list)
    """Tried, in order."""

    async def trial(self, rate: float, seed: int) -> Sequence[RequestRecord]:
        self.rates.append(rate)
        free = 0.0
        records = []
        for index, time in enumerate(arrival_times(rate, self.seconds, "poisson", seed)):
            begin = max(time, free)
            record = RequestRecord(index, "a", "short_qa", 0, time, sent=time)
            if begin - time > self.patience:
                record.status, record.reason, record.end = "exhausted", "QUEUE_FULL", time
            else:
                free = begin + 1 / self.capacity
                record.status, record.end = OK, free
            records.append(record)
        return records
