"""The figures of a load test as one flat table, for spreadsheets: a line per group, with intervals as columns."""

import csv
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from loradeck_bench.load.figures.spread import PERCENTILES

_COUNTS = (
    "requests", "ok", "failed", "requests_per_second", "output_tokens_per_second", "prompt_tokens_per_second",
    "attained", "goodput_per_second",
)  # fmt: skip
_SPREADS = ("latency_ms", "ttft_ms", "tpot_ms", "itl_ms", "schedule_delay_ms", "queue_ms", "load_ms")
_BOUNDED = _SPREADS[:4]
COLUMNS = (
    "group", "name", *_COUNTS,
    *(f"{key}.{mark}" for key in _SPREADS for mark in ("count", "mean", *(f"p{p}" for p in PERCENTILES), "max")),
    *(f"{key}.p{mark}.{bound}" for key in _BOUNDED for mark in PERCENTILES for bound in ("low", "high")),
    "task", "quality_metric", "quality", "quality.low", "quality.high",
)  # fmt: skip


def write_csv(summary: Mapping[str, Any], out: TextIO) -> None:
    """Write the figures of all requests, of each adapter, residency, revision and window of time."""
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_lines(summary))


def _lines(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    quality = summary.get("quality", {})
    yield _line("all", "", summary)
    for group, key in (("adapter", "per_adapter"), ("residency", "per_residency")):
        for name, figures in summary[key].items():
            scored = quality.get(key, {}).get(name)
            yield _line(group, name, figures) | (_quality(scored["task"], scored, quality) if scored else {})
    for window in summary.get("over_time", ()):
        yield _line("seconds", f"{window['from_seconds']:g} to {window['to_seconds']:g}", window)
    for task, figures in quality.get("per_task", {}).items():
        yield {"group": "task", "name": task, "ok": figures["answers"]} | _quality(task, figures, quality)
    for name, figures in quality.get("per_revision", {}).items():
        scores = _quality(figures["task"], figures, quality)
        yield {"group": "revision", "name": name, "ok": figures["answers"]} | scores


def _line(group: str, name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"group": group, "name": name}
    line |= {key: figures[key] for key in _COUNTS if figures.get(key) is not None}
    for key in _SPREADS:
        spread = figures.get(key) or {}
        line |= {f"{key}.{mark}": value for mark, value in spread.items() if mark != "intervals"}
        for mark, (low, high) in spread.get("intervals", {}).items():
            line |= {f"{key}.{mark}.low": low, f"{key}.{mark}.high": high}
    return line


def _quality(task: str, figures: Mapping[str, Any], quality: Mapping[str, Any]) -> dict[str, Any]:
    metric = quality["headline"][task]
    low, high = figures.get("intervals", {}).get(metric, ("", ""))
    return {
        "task": task, "quality_metric": metric, "quality": figures[metric], "quality.low": low, "quality.high": high,
    }  # fmt: skip
