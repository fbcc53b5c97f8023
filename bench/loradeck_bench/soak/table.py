"""The result of a soak as a table for people."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def soak_table(result: Mapping[str, Any]) -> Table:
    """What was asked, and what was found."""
    table = Table(title=f"soak, {result['minutes']:.1f} minutes", show_header=False)
    table.add_row("requests", f"{result['requests']:,}")
    for part, outcomes in result["outcomes"].items():
        table.add_row(f"  {part}", ", ".join(f"{count:,} {what}" for what, count in outcomes.items()))
    table.add_row("replies compared", f"{result['replies_checked']:,}")
    for name in ("wrong_tokens", "crashes", "hangs", "unexpected"):
        table.add_row(name.replace("_", " "), str(result[name]))
    leaks = ", ".join(f"{count} × {what}" for what, count in result["leaks"].items())
    table.add_row("leaked", leaks or "0")
    table.add_row("memory", f"{result['rss_growth']:+.2%} to {result['memory']['last_bytes'] / 2**20:,.0f} MiB")
    table.add_row(
        "latency p99", f"{result['p99_first']:.0f} ms in the first third, {result['p99_last']:.0f} in the last"
    )
    churned = ", ".join(f"{count} {what}" for what, count in result["churn"].items())
    table.add_row("meanwhile", f"{result['moves']} moves between answers; {churned}")
    for example in result["examples"]:
        table.add_row("[red]seen[/red]", example)
    return table
