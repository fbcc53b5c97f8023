"""The tables of paired tests for the terminal, one for each pair of models; they fit 80 columns."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table

from loradeck_bench.report.units import fixed

COLUMNS = ("metric", "values", "difference", "95 % interval", "p (Holm)", "detect.")


def comparison_tables(outcome: Mapping[str, Any]) -> Iterator[Table]:
    """A row per metric; the caption explains the columns."""
    for (first, second), rows in groupby(outcome["comparisons"], lambda row: (row["first"], row["second"])):
        table = Table(
            title=f"{first} → {second}, the same rows",
            caption="p (Holm): corrected for all rows; detect.: smallest difference found 4 times in 5",
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for column in COLUMNS:
            justify = {"metric": "left"}.get(column, "right")
            table.add_column(column, justify=justify, no_wrap=column != "metric", overflow="fold")  # type: ignore[arg-type]
        for row in rows:
            table.add_row(
                row["metric"],
                f"{row['first_value']:.3f} → {row['second_value']:.3f}",
                f"{row['difference']:+.3f}",
                f"{row['interval'][0]:+.3f} to {row['interval'][1]:+.3f}",
                fixed(row["p_holm"], 4),
                fixed(row["smallest_detectable"]),
            )
        yield table


def verdict_line(row: Mapping[str, Any]) -> str:
    """What one test says, in a line."""
    test = f"{row['test']} p = {row['p']:.4f}"
    if "only_first" in row:
        test += f", only {row['first']} right {row['only_first']}, only {row['second']} right {row['only_second']}"
    return f"{row['metric']}: {row['verdict']} ({test}; {row['items']} rows)"
