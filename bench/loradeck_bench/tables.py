"""Tables for people on the terminal: evaluation, load, storage, swap."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import JustifyMethod
from rich.table import Table

from loradeck_bench.report.units import duration, fixed, size


def report_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The classification report; rows that have intervals show that of their F1."""
    table = Table(title=title, title_justify="left")
    for column in ("class", "precision", "recall", "f1-score", "95 % interval", "support"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in rows:
        if row["name"] == "accuracy":
            table.add_section()
        ratios = ["" if row[key] is None else fixed(row[key], 2) for key in ("precision", "recall", "f1")]
        low, high = row.get("intervals", {}).get("f1", (None, None))
        bounds = "" if low is None else f"{fixed(low, 2)} to {fixed(high, 2)}"
        table.add_row(row["name"], *ratios, bounds, str(row["support"]))
    return table


def metrics_table(figures: Mapping[str, Any], title: str) -> Table:
    """Every metric with its interval and how it was computed; how intervals were, once for all."""
    methods = {name: how.partition("; interval: ") for name, how in figures["methods"].items()}
    how_bounded = {bounds for _, _, bounds in methods.values() if bounds}
    caption = f"95 % intervals: {', '.join(sorted(how_bounded))}" if how_bounded else None
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("computed by", overflow="fold", style="dim")
    for name, (how, _, _) in methods.items():
        bounds = figures["intervals"].get(name)
        interval = f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""
        table.add_row(name, fixed(figures[name]), interval, how)
    return table


def category_table(figures: Mapping[str, Any]) -> Table:
    """Every metric that lies between 0 and 1 by category, and the mean of the categories."""
    every = {**figures["by_category"], "macro average": figures["macro"]}
    names = [name for name in figures["macro"]["methods"] if all(0 <= row[name] <= 1 for row in every.values())]
    table = Table(title="By category", title_justify="left")
    table.add_column("category")
    table.add_column("rows", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    for category, row in every.items():
        if category == "macro average":
            table.add_section()
        table.add_row(category or "none", str(row.get("rows", "")), *(fixed(row[name]) for name in names))
    return table


_MARKS = (
    ("p50", "latency_ms", "p50"), ("p99", "latency_ms", "p99"), ("TTFT", "ttft_ms", "p50"), ("TPOT", "tpot_ms", "p50"),
    ("delay", "schedule_delay_ms", "p99"),
)  # fmt: skip


def load_table(summary: Mapping[str, Any]) -> Table:
    """A line per adapter and one for all; times in milliseconds from the intended send. Fits 80 columns."""
    table = Table(
        title="Load: milliseconds from the intended send",
        caption="p50, p99: latency; TTFT, TPOT: p50; delay: the client's own, p99",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    table.add_column("adapter", overflow="fold", min_width=14)
    for column in ("sent", "failed", "req/s", "tok/s", *(title for title, _, _ in _MARKS)):
        table.add_column(column, justify="right", no_wrap=True)
    for name, figures in [*summary["per_adapter"].items(), ("all", summary)]:
        if name == "all":
            table.add_section()
        table.add_row(
            name,
            str(figures["requests"]),
            str(figures["failed"]),
            fixed(figures["requests_per_second"], 1),
            fixed(figures["output_tokens_per_second"], 0),
            *(_milliseconds(figures[key][mark] if figures[key] else None) for _, key, mark in _MARKS),
        )
    return table


def _milliseconds(value: float | None) -> str:
    return fixed(value, 1 if value is not None and value < 100 else 0)


def paired_table(result: Mapping[str, Any]) -> Table:
    """Both sides of a comparison, b against a with its interval, and the verdict."""
    table = Table(
        title=f"a against b, {result['alternations']} alternations", title_justify="left", box=box.SIMPLE_HEAD,
        caption=(result.get("client") or {}).get("verdict"), caption_justify="left", collapse_padding=True,
    )  # fmt: skip
    table.add_column("figure", overflow="fold")
    for column in ("a", "b", "b/a, b-a", "95 % interval"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, one in result["figures"].items():
        digits = 3 if one["compared_by"] == "ratio b/a" or one["a"] < 10 else 1
        table.add_row(
            name, fixed(one["a"], 3 if one["a"] < 10 else 1), fixed(one["b"], 3 if one["b"] < 10 else 1),
            fixed(one["change"], digits), " to ".join(fixed(bound, digits) for bound in one["interval"]),
            one["verdict"],
        )  # fmt: skip
    return table


def storage_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Bytes of every revision against a full checkpoint."""
    table = Table(title="Storage", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("artifact", "kind", "rank", "bytes", "size", "of a full", "per full"):
        justify: JustifyMethod = "left" if column in ("artifact", "kind") else "right"
        table.add_column(column, justify=justify, no_wrap=" " not in column)
    for row in rows:
        ratio = row["ratio_to_full"]
        table.add_row(
            row["artifact"],
            row["kind"],
            "–" if row["rank"] is None else str(row["rank"]),
            f"{row['bytes']:,}",
            size(row["bytes"]),
            "–" if ratio is None else f"{ratio:.1%}",
            fixed(row["per_full"], 1),
        )
    return table


def swap_table(swap: Mapping[str, Any]) -> Table:
    """Counts and stages of a swap."""
    table = Table(title=f"Swap of {swap['reference']} under load", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key in ("requests", "failed", "wrong_revision"):
        table.add_row(key.replace("_", " "), str(swap[key]))
    for revision, count in swap["answered_by"].items():
        table.add_row(f"answered by revision {revision}", str(count))
    for stage, seconds in swap["seconds"].items():
        table.add_row(f"{stage.replace('_', ' ')}", duration(seconds))
    return table
