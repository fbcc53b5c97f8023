"""Figures of load tests: over time, quality, step sweep, search for goodput, and one side against another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from loradeck_bench.report.canvas import PALETTE, embedded, styled, subplots

_OPERATIONS = {"publish": "#4c9f70", "move": "#a04e9c", "unload": "#d9822b"}


@styled
def time_chart(load: Mapping[str, Any]) -> str | None:
    """Rates, latencies and quality in windows of time, with churn where there was any; None without windows."""
    windows: Sequence[Mapping[str, Any]] = load.get("over_time") or []
    if not any(window["requests"] for window in windows):
        return None
    times = [(window["from_seconds"] + window["to_seconds"]) / 2 for window in windows]
    quality = load.get("quality")
    figure, panes = subplots(3 if quality else 2, width=11.0 if quality else 8.0, height=2.9)
    rates, latencies = panes[:2]
    rates.step(times, [w["requests_per_second"] for w in windows], where="mid", color=PALETTE[5], label="sent")
    rates.step(times, [w["answered_per_second"] for w in windows], where="mid", color=PALETTE[0], label="answered")
    rates.set(title="requests per second", xlabel="seconds", ylim=(0, None))
    rates.legend(loc="lower right")
    for key, mark, colour in (
        ("latency_ms", "p50", PALETTE[0]), ("latency_ms", "p99", PALETTE[1]), ("ttft_ms", "p50", PALETTE[2]),
        ("ttft_ms", "p99", PALETTE[3]),
    ):  # fmt: skip
        values = [window[key][mark] if window[key] else np.nan for window in windows]
        if not np.isnan(values).all():
            name = "latency" if key == "latency_ms" else "first token"
            latencies.plot(times, values, marker=".", color=colour, label=f"{name} {mark}")
    latencies.set(title="milliseconds", xlabel="seconds", ylim=(0, None))
    if latencies.lines:
        latencies.set_ylim(0, latencies.get_ylim()[1] * 1.35)  # room for the legend
        latencies.legend(loc="upper left", ncols=2, fontsize=7.5)
    if quality:
        for (task, metric), colour in zip(quality["headline"].items(), PALETTE, strict=False):
            values = [window.get(task, np.nan) for window in quality["over_time"]]
            panes[2].plot(times, values, marker=".", color=colour, label=f"{task}: {metric}")
        panes[2].set(title="quality of the answers", xlabel="seconds", ylim=(0, 1.02))
        panes[2].legend(loc="best", fontsize=7.5)
    for pane in panes:
        _churn(pane, load.get("churn"))
    return embedded(figure)


def _churn(pane: Axes, churn: Mapping[str, Any] | None) -> None:
    for operation in (churn or {}).get("operations", ()):
        pane.axvline(operation["started"], color=_OPERATIONS[operation["what"]], linewidth=0.8, linestyle=":")


@styled
def quality_bars(quality: Mapping[str, Any] | None) -> str | None:
    """The headline metric of every adapter and revision with its interval; None without any."""
    if not quality or not quality["per_adapter"]:
        return None
    rows = [(name, figures) for part in ("per_adapter", "per_revision") for name, figures in quality[part].items()]
    names = [
        f"{name} ({quality['headline'][figures['task']]})" + ("" if place < len(quality["per_adapter"]) else " ")
        for place, (name, figures) in enumerate(rows)
    ]
    metrics = [quality["headline"][figures["task"]] for _, figures in rows]
    values = [figures[metric] for (_, figures), metric in zip(rows, metrics, strict=True)]
    bounds = [figures["intervals"].get(m, (v, v)) for (_, figures), m, v in zip(rows, metrics, values, strict=True)]
    figure, (pane,) = subplots(1, width=7.0, height=0.32 * len(rows) + 0.9)
    colours = [PALETTE[0]] * len(quality["per_adapter"]) + [PALETTE[5]] * len(quality["per_revision"])
    pane.barh(names, values, color=colours, xerr=_whiskers(values, bounds), capsize=2)
    pane.set(xlim=(0, 1.02))
    pane.invert_yaxis()
    return embedded(figure)


@styled
def sweep_chart(sweep: Mapping[str, Any]) -> str | None:
    """Answered rate, latency and quality over the offered rate; None without steps."""
    steps: Sequence[Mapping[str, Any]] = sweep.get("steps") or []
    if not steps:
        return None
    offered = [step["rate"] for step in steps]
    scored = [step for step in steps if step.get("quality")]
    figure, panes = subplots(3 if scored else 2, width=11.0 if scored else 8.0, height=3.0)
    panes[0].plot([0, max(offered)], [0, max(offered)], color=PALETTE[5], linestyle="--", linewidth=0.8)
    panes[0].plot(offered, [step["answered_per_second"] for step in steps], marker="o", markersize=4)
    panes[0].set(title="answered per second", xlabel="offered per second", xlim=(0, None), ylim=(0, None))
    for key, mark, place in (("latency_ms", "p50", 0), ("latency_ms", "p99", 1), ("ttft_ms", "p99", 3)):
        chosen = [step for step in steps if step[key]]
        if chosen:
            values = [step[key][mark] for step in chosen]
            bounds = [step[key].get("intervals", {}).get(mark, (v, v)) for step, v in zip(chosen, values, strict=True)]
            panes[1].errorbar(
                [step["rate"] for step in chosen], values, yerr=_whiskers(values, bounds), marker="o", markersize=4,
                capsize=2, color=PALETTE[place],
                label=f"{'latency' if key == 'latency_ms' else 'first token'} {mark}",
            )  # fmt: skip
    panes[1].set(title="milliseconds", xlabel="offered per second", yscale="log")
    if panes[1].lines:
        panes[1].legend(loc="upper left", fontsize=7.5)
    tasks = sorted({task for step in scored for task in step["quality"]["per_task"]})
    for task, colour in zip(tasks, PALETTE, strict=False):
        found = [(s["rate"], s["quality"]["per_task"][task]) for s in scored if task in s["quality"]["per_task"]]
        values = [one[one["metric"]] for _, one in found]
        bounds = [one["intervals"].get(one["metric"], (v, v)) for (_, one), v in zip(found, values, strict=True)]
        panes[2].errorbar(
            [rate for rate, _ in found], values, yerr=_whiskers(values, bounds), marker="o", markersize=4, capsize=2,
            color=colour, label=f"{task}: {found[0][1]['metric']}",
        )  # fmt: skip
    if scored:
        panes[2].set(title="quality of the answers", xlabel="offered per second", ylim=(0, 1.02))
        panes[2].legend(loc="best", fontsize=7.5)
    if sweep.get("saturated_rate"):
        for pane in panes:
            pane.axvline(sweep["saturated_rate"], color="#b3423a", linewidth=0.8, linestyle=":")
    return embedded(figure)


@styled
def goodput_chart(goodput: Mapping[str, Any]) -> str | None:
    """Share of requests within the objective over the rate; None without trials."""
    trials = goodput.get("trials") or []
    if not trials:
        return None
    figure, (pane,) = subplots(1, width=5.2, height=3.0)
    for held, colour, label in ((True, PALETTE[0], "holds"), (False, "#b3423a", "fails")):
        chosen = [trial for trial in trials if trial["held"] is held]
        pane.plot([t["rate"] for t in chosen], [t["attained"] for t in chosen], "o", color=colour, label=label)
    pane.axhline(goodput["objective"]["attainment"], color=PALETTE[5], linewidth=0.8, linestyle="--")
    pane.set(xlabel="requests per second", ylabel="share within the objective", ylim=(-0.02, 1.04), xscale="log")
    pane.legend(loc="lower left")
    return embedded(figure)


@styled
def paired_chart(ab: Mapping[str, Any]) -> str | None:
    """Ratios of side b to side a with their intervals; None without any."""
    ratios = {name: one for name, one in ab.get("figures", {}).items() if one["compared_by"] == "ratio b/a"}
    if not ratios:
        return None
    figure, (pane,) = subplots(1, width=6.6, height=0.33 * len(ratios) + 1.0)
    for place, one in enumerate(ratios.values()):
        shown = one["verdict"].endswith("better")
        colour = PALETTE[5] if not shown else "#4c9f70" if one["verdict"].startswith("b") else "#b3423a"
        whiskers = _whiskers([one["change"]], [one["interval"]])
        pane.errorbar([one["change"]], [place], xerr=whiskers, fmt="o", markersize=4, capsize=3, color=colour)
    pane.axvline(1.0, color=PALETTE[5], linewidth=0.8)
    pane.set_yticks(range(len(ratios)), list(ratios))
    pane.set(xlabel="b / a, 95 % interval; green: b is better, red: a is better")
    pane.invert_yaxis()
    return embedded(figure)


def _whiskers(values: Sequence[float], bounds: Sequence[Sequence[float]]) -> Any:
    """Lengths below and above each value, as matplotlib takes them."""
    pairs = zip(values, bounds, strict=True)
    return np.array([[max(0.0, value - low), max(0.0, high - value)] for value, (low, high) in pairs]).T
