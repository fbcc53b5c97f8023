"""The comparison of trainers for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from loradeck_bench.report.units import size


def training_tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """Plain against loradeck where it was measured, then LoRA against full, then what is stored."""
    if "ratio" in result:
        yield _both(result)
    yield from _methods(result)


def _both(result: Mapping[str, Any]) -> Table:
    both = Table(title="plain Trainer + PEFT against loradeck", title_justify="left")
    for column in ("", "plain", "loradeck", "ratio"):
        both.add_column(column, justify="right" if column else "left")
    both.add_row(
        "useful tokens/s", f"{result['plain_tokens_per_s']:,.0f}", f"{result['loradeck_tokens_per_s']:,.0f}",
        f"{result['ratio']:.2f}",
    )  # fmt: skip
    both.add_row(
        "peak memory, vocabulary of 152,064", size(result["plain_peak_bytes"]), size(result["loradeck_peak_bytes"]),
        f"{result['peak_ratio']:.2f}",
    )  # fmt: skip
    both.add_row("difference of the validation losses", "", "", f"{result['loss_difference']:.4f}")
    return both


def _methods(result: Mapping[str, Any]) -> Iterator[Table]:
    methods = Table(title="LoRA and full", title_justify="left")
    for column in ("method", "batch", "tokens/s", "seconds", "peak", "peak while saving", "validation loss", "stored"):
        methods.add_column(column, justify="left" if column == "method" else "right")
    for row in result["methods"]:
        saving = row["checkpoint_peak_bytes"]
        methods.add_row(
            row["method"], str(row["batch_size"]), f"{row['tokens_per_s']:,.0f}", f"{row['seconds']:.1f}",
            size(row["peak_bytes"]), "" if saving is None else size(saving), f"{row['validation_loss']:.3f}",
            size(row["stored_bytes"]),
        )  # fmt: skip
    yield methods
    stored = Table(title="what is published", title_justify="left")
    for column in ("", "trained parameters", "bytes"):
        stored.add_column(column, justify="right" if column else "left")
    for row in result["stored"]:
        stored.add_row(row["what"], f"{row['trainable_parameters']:,}", f"{row['bytes']:,}")
    yield stored
