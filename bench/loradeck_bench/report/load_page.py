"""Load tests as one HTML file that asks nothing of the network: load, step sweep, goodput, one side against another."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from loradeck_bench.machine import machine, versions
from loradeck_bench.output import open_for_writing
from loradeck_bench.report.html import pages
from loradeck_bench.report.load_charts import goodput_chart, paired_chart, quality_bars, sweep_chart, time_chart
from loradeck_bench.report.load_figures import latency_bars
from loradeck_bench.report.units import fixed


def write_load_page(result: Mapping[str, Any], title: str, path: Path) -> None:
    """Write the page of `result`, which has some of `load`, `sweep`, `goodput` and `ab` as the commands of these names
    write them, on this machine and now. Raises PreconditionError if it cannot be written."""
    report = {
        "title": title,
        "created": f"{datetime.now():%Y-%m-%d %H:%M}",
        "machine": machine(),
        "versions": versions(),
        **result,
    }
    with open_for_writing(str(path)) as out:
        out.write(render_load(report))


def render_load(report: Mapping[str, Any]) -> str:
    """The HTML of a report with `title`, `created` and some of `load`, `sweep`, `goodput`, `ab`."""
    load = report.get("load", {})
    unfinished = [part["unfinished"] for part in report.values() if isinstance(part, Mapping) and "unfinished" in part]
    whole = {**report, "headline": _cards(load)} if load.get("ok") else dict(report)
    if unfinished:
        whole["unfinished"] = f"{unfinished[0]}."
    return (
        pages()
        .get_template("load.html")
        .render(
            report=whole,
            figures={
                "latency": latency_bars(load.get("per_adapter", {})),
                "time": time_chart(load),
                "quality": quality_bars(load.get("quality")),
                "sweep": sweep_chart(report.get("sweep", {})),
                "goodput": goodput_chart(report.get("goodput", {})),
                "ab": paired_chart(report.get("ab", {})),
            },
        )
    )


def _cards(load: Mapping[str, Any]) -> list[dict[str, str]]:
    cards = [
        _card(fixed(load["requests_per_second"], 2), "requests/s answered", f"{load['ok']} of {load['requests']}"),
        _card(fixed(load["output_tokens_per_second"], 0), "output tokens/s", load["client"]["verdict"]),
    ]
    for key, mark, label in (("latency_ms", "p99", "latency p99, ms"), ("ttft_ms", "p99", "first token p99, ms")):
        if load[key]:
            low, high = load[key].get("intervals", {}).get(mark, (None, None))
            note = f"p50 {fixed(load[key]['p50'], 1)} ms; 95 % interval {fixed(low, 0)} to {fixed(high, 0)}"
            cards.append(_card(fixed(load[key][mark], 0), label, note))
    if "objective" in load:
        bounds = ", ".join(f"{name} {bound:g} ms" for name, bound in load["objective"]["bounds_ms"].items())
        cards.append(_card(fixed(load["goodput_per_second"], 2), "requests/s within the objective", bounds))
    quality = load.get("quality", {})
    for task, metric in quality.get("headline", {}).items():
        figures = quality["per_task"][task]
        low, high = figures["intervals"].get(metric, (None, None))
        note = f"{figures['answers']} timed answers; 95 % interval {fixed(low)} to {fixed(high)}"
        cards.append(_card(fixed(figures[metric]), f"{metric}, {task}", note))
    return cards


def _card(value: str, label: str, note: str) -> dict[str, str]:
    return {"value": value, "label": label, "note": note}
