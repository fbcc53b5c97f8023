"""Figures of serving: latency per adapter, storage, and the moment of a swap."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loradeck_bench.report.canvas import PALETTE, embedded, styled, subplots
from loradeck_bench.report.units import size

KINDS = {"base": "#8d99a6", "adapter": "#2f6db5", "full": "#d9822b"}
_MARKS = ("p50", "p90", "p99")


@styled
def latency_bars(per_adapter: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Percentiles per adapter: latency, and for streamed answers time to first token, per token and between tokens."""
    panes_of = [
        (title, {name: figures[key] for name, figures in per_adapter.items() if figures.get(key)})
        for key, title in (
            ("latency_ms", "end to end, ms"),
            ("ttft_ms", "first token, ms"),
            ("tpot_ms", "per token, ms"),
            ("itl_ms", "between tokens, ms"),
        )
    ]
    panes_of = [(title, spreads) for title, spreads in panes_of if spreads]
    if not panes_of:
        return None
    figure, panes = subplots(len(panes_of), width=3.3 * len(panes_of))
    for pane, (title, spreads) in zip(panes, panes_of, strict=True):
        for position, (mark, colour) in enumerate(zip(_MARKS, ("#a9c4e2", "#5f92cb", "#1f4e86"), strict=True)):
            places = np.arange(len(spreads)) + (position - 1) * 0.27
            values = [spread[mark] for spread in spreads.values()]
            bounds = [spread.get("intervals", {}).get(mark, (spread[mark],) * 2) for spread in spreads.values()]
            pairs = zip(values, bounds, strict=True)
            whiskers = np.array([[max(0.0, v - low), max(0.0, high - v)] for v, (low, high) in pairs]).T
            style = {"elinewidth": 0.7, "ecolor": "#5b6770"}
            pane.bar(places, values, 0.25, color=colour, label=mark, yerr=whiskers, capsize=1.5, error_kw=style)
        pane.set_xticks(range(len(spreads)), list(spreads), rotation=20, ha="right")
        pane.set_title(title)
    panes[0].legend(ncols=3, loc="upper left")
    panes[0].set_ylim(0, panes[0].get_ylim()[1] * 1.15)
    return embedded(figure)


@styled
def storage_bars(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Bytes of every revision; None without rows."""
    if not rows:
        return None
    figure, (pane,) = subplots(1, width=6.5, height=0.34 * len(rows) + 1.0)
    names = [row["artifact"] for row in rows]
    bars = pane.barh(names, [row["bytes"] / 1e6 for row in rows], color=[KINDS[row["kind"]] for row in rows])
    pane.bar_label(bars, [size(row["bytes"]) for row in rows], padding=3, fontsize=8)
    pane.set_xlim(right=max(row["bytes"] for row in rows) / 1e6 * 1.2)
    pane.set_xlabel("MB")
    pane.invert_yaxis()
    pane.grid(False)
    return embedded(figure)


@styled
def swap_timeline(swap: Mapping[str, Any]) -> str | None:
    """Every answer of the load by the time it was sent and its latency, coloured by the revision that answered."""
    points = swap.get("timeline") or []
    if not points:
        return None
    figure, (pane,) = subplots(1, width=7.5, height=2.8)
    revisions = sorted({point["revision"] for point in points if point["ok"]})
    for revision, colour in zip(revisions, PALETTE, strict=False):
        chosen = [point for point in points if point["ok"] and point["revision"] == revision]
        pane.plot(
            [point["sent"] for point in chosen], [point["latency_ms"] for point in chosen],
            ".", markersize=4, color=colour, label=f"revision {revision}",
        )  # fmt: skip
    failed = [point for point in points if not point["ok"]]
    if failed:
        pane.plot([point["sent"] for point in failed], [0] * len(failed), "x", color="#b3423a", label="failed")
    for moment, label in (("moved", "alias moved"), ("acknowledged", "server flipped")):
        if swap.get(moment) is not None:
            pane.axvline(
                swap[moment], color="#23303d", linewidth=1, linestyle="-" if moment == "moved" else "--", label=label
            )
    pane.set(xlabel="sent, seconds from the start of the load", ylabel="latency, ms", ylim=(0, None))
    pane.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return embedded(figure)
