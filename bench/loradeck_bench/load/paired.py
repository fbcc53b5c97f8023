"""Paired comparison of two servers or settings: both get the same schedule in turn, and differences have intervals."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loradeck_bench.load.figures.summary import summarise
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.session import Session

FEWEST = 9
"""Alternations below which there is no verdict."""
RESAMPLES = 10_000
SIDES = ("a", "b")

Block = Callable[[str, int], Awaitable[Sequence[RequestRecord]]]
"""Loads a side with the schedule of a seed, and returns its records."""


@dataclass(frozen=True)
class Measure:
    """A figure of a block. Times and rates are compared by ratio, shares and scores by difference."""

    name: str
    lower_is_better: bool
    by_ratio: bool = True


_SPREADS = (
    ("latency_ms", ("mean", "p50", "p99")),
    ("ttft_ms", ("p50", "p99")),
    ("tpot_ms", ("p50",)),
    ("itl_ms", ("p99",)),
)
_RATES = ("requests_per_second", "output_tokens_per_second")


def block_figures(records: Sequence[RequestRecord], session: Session) -> dict[Measure, float]:
    """What is compared of one block; without what does not exist in it."""
    summary = summarise(records, session.objective)
    found: dict[Measure, float] = {}
    for key, marks in _SPREADS:
        if summary[key] is not None:
            found |= {Measure(f"{key}.{mark}", True): summary[key][mark] for mark in marks}
    found |= {Measure(name, False): summary[name] for name in _RATES}
    found[Measure("failed_share", True, False)] = summary["failed"] / len(records) if records else 0.0
    if session.objective is not None:
        found[Measure("attained", False, False)] = summary["attained"]
        found[Measure("goodput_per_second", False)] = summary["goodput_per_second"]
    if session.metrics is not None:
        quality = session.quality(records)
        headline = quality.headline
        for task, figures in quality.per_task().items():
            found[Measure(f"{task}.{headline[task]}", False, False)] = figures[headline[task]]
    return found


async def compare(
    block: Block,
    sessions: Mapping[str, Session],
    *,
    rounds: int,
    seed: int,
    seen: Callable[[int, str, dict[Measure, float]], None] = lambda number, side, figures: None,
) -> dict[str, Any]:
    """Load side `a` and side `b` with the schedule of `seed`, then with that of the next seed in the other order, and
    so on; returns the result in the form of report files. A cancelled comparison keeps its whole rounds."""
    whole: list[dict[str, dict[Measure, float]]] = []
    unfinished: dict[str, str] = {}
    for number in range(rounds):
        both: dict[str, dict[Measure, float]] = {}
        try:
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                both[side] = block_figures(await block(side, seed + number), sessions[side])
                seen(number, side, both[side])
        except asyncio.CancelledError:
            unfinished = {"unfinished": f"interrupted after {number} of {rounds} alternations"}
            break
        whole.append(both)
    return {
        "alternations": len(whole),
        "figures": {measure.name: judge(measure, *pairs) for measure, pairs in _pairs(whole).items()},
        "rounds": [
            {"seed": seed + number, **{side: {m.name: v for m, v in both[side].items()} for side in SIDES}}
            for number, both in enumerate(whole)
        ],
        "rule": f"a difference is shown where the 95 % percentile bootstrap interval over alternations ({RESAMPLES} "
        "resamples, seed 0) of the mean log ratio, or of the mean difference of shares and scores, leaves out that of "
        f"equal sides; below {FEWEST} alternations (`too few`) there is no verdict",
        **unfinished,
    }


def _pairs(rounds: Sequence[Mapping[str, Mapping[Measure, float]]]) -> dict[Measure, tuple[list[float], list[float]]]:
    """Both sides' values of every figure that all blocks have."""
    if not rounds:
        return {}
    first = rounds[0]["a"]
    everywhere = [m for m in first if all(m in one[side] for one in rounds for side in SIDES)]
    return {m: ([one["a"][m] for one in rounds], [one["b"][m] for one in rounds]) for m in everywhere}


def judge(measure: Measure, a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Means of both sides, b against a with its interval, and the verdict: which side is better, if that was shown."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    by_ratio = measure.by_ratio and bool((first > 0).all() and (second > 0).all())
    changes = np.log(second / first) if by_ratio else second - first
    drawn = np.random.default_rng(0).choice(changes, (RESAMPLES, len(changes))).mean(axis=1)
    low, high = (float(bound) for bound in np.percentile(drawn, (2.5, 97.5)))
    if len(changes) < FEWEST:
        verdict = "too few"
    elif low <= 0 <= high:
        verdict = "no difference"
    else:
        verdict = f"{'b' if (high < 0) == measure.lower_is_better else 'a'} is better"
    turn = np.exp if by_ratio else (lambda value: value)
    return {
        "a": float(first.mean()),
        "b": float(second.mean()),
        "compared_by": "ratio b/a" if by_ratio else "difference b-a",
        "change": float(turn(changes.mean())),
        "interval": [float(turn(low)), float(turn(high))],
        "lower_is_better": measure.lower_is_better,
        "verdict": verdict,
    }
