"""Whether adapters were served alike: Jain's index of what each got of what it asked for, and the worst-off one."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.record import RequestRecord


def jain(values: Iterable[float]) -> float | None:
    """Jain's fairness index (sum x)^2 / (n sum x^2): 1 when all are equal, 1/n when one has everything; None without a
    value above zero. Jain, Chiu and Hawe, 1984."""
    array = np.asarray(list(values), dtype=np.float64)
    squares = float((array**2).sum())
    return float(array.sum()) ** 2 / (array.size * squares) if squares > 0 else None


def fairness(
    records: Sequence[RequestRecord], names: Iterable[str], base: str, objective: Objective | None = None
) -> dict[str, Any]:
    """Per adapter of `names` (`base` is the base's), and as indices over those that were asked.

    `answered`: share of its requests that were answered. `slowdown`: mean over its answers of latency by the mean
    latency of all answers of the same task, so that long answers do not count as slow; 1 is average. `attained`: share
    within `objective`. `worst` is the adapter with the smallest share attained, or answered without an objective, and
    among equals the one with the largest slowdown.
    """
    asked: dict[str, list[RequestRecord]] = defaultdict(list)
    tasks: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.cut_off:
            continue
        asked[record.adapter or base].append(record)
        if record.ok and record.latency is not None:
            tasks[record.task].append(record.latency)
    usual = {task: float(np.mean(latencies)) for task, latencies in tasks.items()}
    found = {name: _of(asked[name], usual, objective) for name in names if asked.get(name)}
    return {
        "jain_answered": jain(one["answered"] for one in found.values()),
        "jain_slowdown": jain(one["slowdown"] for one in found.values() if one["slowdown"] is not None),
        **({"jain_attained": jain(one["attained"] for one in found.values())} if objective else {}),
        "worst": _worst(found),
        "per_adapter": found,
    }


def _of(records: Sequence[RequestRecord], usual: dict[str, float], objective: Objective | None) -> dict[str, Any]:
    slow = [r.latency / usual[r.task] for r in records if r.ok and r.latency is not None and usual[r.task] > 0]
    return {
        "answered": sum(record.ok for record in records) / len(records),
        "slowdown": float(np.mean(slow)) if slow else None,
        **({"attained": objective.attained(records)} if objective else {}),
    }


def _worst(found: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    if len(found) < 2:
        return None
    name = min(
        found, key=lambda one: (found[one].get("attained", found[one]["answered"]), -(found[one]["slowdown"] or 0))
    )
    return {"adapter": name, **found[name]}
