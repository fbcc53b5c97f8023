"""A service-level objective: bounds for single requests, and the share of requests that must keep them all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_bench.load.record import RequestRecord
from loradeck_registry.errors import InvalidError

BOUNDS = ("ttft", "tpot", "latency")


@dataclass(frozen=True)
class Objective:
    """Bounds in milliseconds for every single request, and the share of requests that must keep them all."""

    bounds: dict[str, float]
    attainment: float = 0.95

    @classmethod
    def parse(cls, texts: Sequence[str], attainment: float = 0.95) -> "Objective":
        """`ttft=200`, `tpot=50`, `latency=1000`. Raises InvalidError (BAD_SLO)."""
        bounds: dict[str, float] = {}
        for text in texts:
            name, _, value = text.partition("=")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if name not in BOUNDS or not (math.isfinite(number) and number > 0):
                raise InvalidError(
                    f"bad objective {text!r}: use NAME=MILLISECONDS with NAME one of {', '.join(BOUNDS)}",
                    reason="BAD_SLO",
                    field="slo",
                )
            bounds[name] = number
        if not bounds or not 0 < attainment <= 1:
            raise InvalidError("an objective needs a bound, and a share in 0 to 1", reason="BAD_SLO", field="slo")
        return cls(bounds, attainment)

    def describe(self) -> dict[str, Any]:
        """In the form of report files."""
        return {"bounds_ms": self.bounds, "attainment": self.attainment}

    def met_by(self, record: RequestRecord) -> bool:
        """Whether the request was answered within all bounds. A reply that is not streamed begins with its end, and one
        of a single token has no time per further token."""
        if not record.ok or record.latency is None:
            return False
        ttft = record.latency if record.ttft is None else record.ttft
        times = {"ttft": ttft, "tpot": record.tpot or 0.0, "latency": record.latency}
        return all(times[name] * 1000 <= bound for name, bound in self.bounds.items())

    def attained(self, records: Sequence[RequestRecord]) -> float:
        """Share of `records` that meet it; 0 without any."""
        return sum(map(self.met_by, records)) / len(records) if records else 0.0
