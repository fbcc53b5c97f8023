"""The result of fuzzing for people."""

from typing import Any

from rich.table import Table


def fuzz_table(result: dict[str, Any]) -> Table:
    """One row for requests, one for registry objects."""
    table = Table("what", "sent", "crashes", "hangs", "wrong", "leaked", "memory", "at the end", "answers")
    for what, part in (("requests", result), ("registry objects", result["registry"])):
        if not part or "requests" not in part:
            continue
        growth = part["rss_growth"]
        codes = ", ".join(f"{name} {count}" for name, count in list(part["codes"].items())[:6])
        table.add_row(
            what, *(str(part[name]) for name in ("requests", "crashes", "hangs", "wrong_tokens", "leaked")),
            *("" if share is None else f"{share:+.1%}" for share in (growth, part["rss_growth_at_the_end"])), codes,
        )  # fmt: skip
    return table
