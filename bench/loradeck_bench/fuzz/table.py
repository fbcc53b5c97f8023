"""The result of fuzzing for people."""

from typing import Any

from rich.table import Table


def fuzz_table(result: dict[str, Any]) -> Table:
    """One row for requests, one for registry objects."""
    table = Table("what", "sent", "crashes", "hangs", "leaked", "memory", "answers")
    for what, part in (("requests", result), ("registry objects", result["registry"])):
        if not part or "requests" not in part:
            continue
        growth = part["rss_growth"]
        codes = ", ".join(f"{name} {count}" for name, count in list(part["codes"].items())[:6])
        table.add_row(
            what, str(part["requests"]), str(part["crashes"]), str(part["hangs"]), str(part["leaked"]),
            "" if growth is None else f"{growth:+.1%}", codes,
        )  # fmt: skip
    return table
