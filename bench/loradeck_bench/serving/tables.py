"""Tables of the serving benchmarks for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from loradeck_bench.report.units import fixed


def figures_table(title: str, result: Mapping[str, Any], lines: Sequence[tuple[str, str, int]]) -> Table:
    """Lines of heading, key of `result` (a dot goes into a map) and digits after the point."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("figure")
    table.add_column("value", justify="right", no_wrap=True)
    for heading, key, digits in lines:
        value: Any = result
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        table.add_row(heading, str(value) if isinstance(value, bool | str) else fixed(value, digits))
    return table


def multilora_table(result: Mapping[str, Any]) -> Table:
    """Throughput with adapters against the base, stock vLLM, and an engine without LoRA."""
    lines = [
        ("adapters, tokens/s", "adapters_tokens_per_s", 0),
        ("base on the same engine, tokens/s", "base_tokens_per_s", 0),
        ("adapters on stock vLLM, tokens/s", "stock_tokens_per_s", 0),
        ("engine without LoRA, tokens/s", "bare_tokens_per_s", 0),
        ("ratio to the base", "ratio_to_base", 3),
        ("ratio to stock vLLM", "ratio_to_stock", 2),
        ("ratio to the engine without LoRA", "ratio_to_bare", 3),
        ("replies compared", "replies", 0),
        ("wrong tokens", "wrong_tokens", 0),
        ("engine with adapters compiled", "adapters_compiled", 0),
        ("engine without LoRA compiled", "bare_compiled", 0),
    ]
    return figures_table("Adapters on one engine", result, lines)


def frontend_table(result: Mapping[str, Any]) -> Table:
    """The doors against the engine in process."""
    lines = [
        ("engine in process, tokens/s", "in_process_tokens_per_s", 0),
        ("gRPC streams, tokens/s", "grpc_tokens_per_s", 0),
        ("vLLM's HTTP streams, tokens/s", "http_tokens_per_s", 0),
        ("gRPC to in process", "grpc_ratio_in_process", 3),
        ("gRPC unary, tokens/s", "grpc_unary_tokens_per_s", 0),
        ("vLLM's HTTP unary, tokens/s", "http_unary_tokens_per_s", 0),
        ("gRPC unary to HTTP unary", "grpc_unary_ratio_http", 3),
        ("one stream, first token, in process, ms", "in_process_ttft_ms", 2),
        ("one stream, first token, gRPC, ms", "grpc_ttft_ms", 2),
        ("first token, gRPC above in process, ms", "ttft_overhead_ms", 2),
    ]
    return figures_table("Front end", result, lines)


def classify_table(result: Mapping[str, Any]) -> Table:
    """One pass over label tokens against generating labels."""
    lines = [
        ("one pass, one at a time, ms", "one_pass_latency_ms", 2),
        ("generated, one at a time, ms", "generated_latency_ms", 2),
        ("latency, one pass to generated", "latency_ratio", 3),
        ("one pass, requests/s", "one_pass_requests_per_s", 1),
        ("generated, requests/s", "generated_requests_per_s", 1),
        ("throughput, one pass to generated", "throughput_ratio", 3),
    ]
    return figures_table("A label in one pass", result, lines)


def flips_table(result: Mapping[str, Any]) -> Table:
    """Counts and times of flips under load."""
    lines = [
        ("flips", "flips", 0),
        ("requests", "requests", 0),
        ("failed", "failed", 0),
        ("replies checked", "replies_checked", 0),
        ("replies of a wrong revision", "wrong_revision", 0),
        ("from the flip to the first token, p50, ms", "flip_to_first_token_ms.p50", 0),
        ("from the flip to the first token, p99, ms", "flip_to_first_token_ms.p99", 0),
        ("time to first token, p99, before, ms", "ttft_p99_before_ms", 1),
        ("time to first token, p99, during, ms", "ttft_p99_during_ms", 1),
        ("requests/s", "rate_requests_per_s", 1),
    ]
    return figures_table("Hot swap under load", result, lines)


def cliff_table(result: Mapping[str, Any]) -> Table:
    """Time to first token over the number of adapters."""
    table = Table(
        title="More adapters than slots",
        caption=f"open loop, {result['rate_requests_per_s']:.1f} requests/s, "
        f"{result['share_of_saturation']:.0%} of saturation",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("adapters", "slots", "TTFT p50, ms", "TTFT p99, ms", "in flight", "requests", "failed"):
        table.add_column(column, justify="right")
    for row in result["rows"]:
        counts = (str(row[key]) for key in ("adapters", "slots"))
        times = (fixed(row[key], 1) for key in ("ttft_p50_ms", "ttft_p99_ms", "in_flight"))
        table.add_row(*counts, *times, str(row["requests"]), str(row["failed"]))
    return table
