"""What a load test adds up to: percentiles, throughput, goodput and errors; overall, per adapter and per residency."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from loradeck_bench.load.figures.fairness import fairness
from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.figures.spread import BOOTSTRAP, grouped_spread, spread
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.shape.popularity import shares

BASE = "(base)"
"""Name of requests without adapter in tables."""


def summarise(records: Sequence[RequestRecord], objective: Objective | None = None) -> dict[str, Any]:
    """Figures of a run in the form of report files. Times are of answered requests, from their intended send."""
    window = _window(records)
    adapters = _grouped(records, lambda record: record.adapter or BASE)
    answered = [record for record in records if record.residency]
    return {
        **_figures(records, window, objective),
        "intervals_by": BOOTSTRAP,
        "shares": shares(record.adapter or BASE for record in records),
        "fairness": fairness(records, adapters, BASE, objective),
        # One window for all groups: rates then add up to the overall rate.
        "per_adapter": {name: _figures(group, window, objective) for name, group in adapters.items()},
        "per_residency": {
            name: _figures(group, window, objective)
            for name, group in _grouped(answered, lambda record: record.residency).items()
        },
        **({"objective": objective.describe()} if objective else {}),
    }


def _window(records: Sequence[RequestRecord]) -> float:
    """Seconds from the first intended send to the last end."""
    ends = [record.end for record in records if record.end is not None]
    return max(ends) - min(record.intended for record in records) if ends else 0.0


def _grouped(records: Sequence[RequestRecord], key: Callable[[RequestRecord], str]) -> dict[str, list[RequestRecord]]:
    groups: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return {name: groups[name] for name in sorted(groups)}


def _figures(records: Sequence[RequestRecord], window: float, objective: Objective | None) -> dict[str, Any]:
    answered = [record for record in records if record.ok]
    failed = [record for record in records if not record.ok and not record.cut_off]
    return {
        "requests": len(records),
        "ok": len(answered),
        "failed": len(failed),
        "cut_off": sum(record.cut_off for record in records),
        "errors": dict(Counter(record.reason or record.status for record in failed).most_common()),
        "seconds": window,
        "requests_per_second": _per_second(len(answered), window),
        "output_tokens_per_second": _per_second(sum(r.output_tokens for r in answered), window),
        "prompt_tokens_per_second": _per_second(sum(r.prompt_tokens for r in answered), window),
        **(_goodput(records, window, objective) if objective else {}),
        "latency_ms": spread(r.latency for r in answered),
        "ttft_ms": spread(r.ttft for r in answered),
        "tpot_ms": spread(r.tpot for r in answered),
        "itl_ms": grouped_spread([r.token_gaps for r in answered]),
        "schedule_delay_ms": spread((r.delay for r in records), bounded=False),
        "queue_ms": spread((r.queue_seconds for r in answered), bounded=False),
        "load_ms": spread((r.load_seconds for r in answered), bounded=False),
        "revisions": dict(Counter(str(r.revision) for r in answered)),
    }


def _goodput(records: Sequence[RequestRecord], window: float, objective: Objective) -> dict[str, float]:
    met = sum(map(objective.met_by, records))
    return {"attained": met / len(records) if records else 0.0, "goodput_per_second": _per_second(met, window)}


def _per_second(count: int, window: float) -> float:
    return count / window if window else 0.0
