"""Tables for people: sizes from shapes, the studies' figures, and a delta."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from loradeck_bench.report.units import size
from loradeck_bench.storage.delta import DeltaFigures
from loradeck_bench.storage.shapes import SizeRow
from loradeck_bench.storage.studies import StudyFigure


def size_table(bases: Sequence[str], rows: Sequence[SizeRow], capacity: int) -> Table:
    """One base's adapters, and in the title the base; `bases` are the names of all that have these shapes."""
    whole = rows[0]
    title = f"{', '.join(bases)}: {whole.parameters:,} parameters\nbase, and each full checkpoint: {size(whole.bytes)}"
    table = Table(title=f"{title}, {whole.fits} in {capacity / 1e9:g} GB", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("LoRA on", "rank", "size", "of a full", f"in {capacity / 1e9:g} GB"):
        table.add_column(column, justify="left" if column == "LoRA on" else "right", no_wrap=True)
    for row in rows:
        if row.kind == "adapter":
            table.add_row(row.targets, str(row.rank), size(row.bytes), f"{row.ratio_to_full:.2%}", f"{row.fits:,}")
    return table


def study_lines(figures: Sequence[StudyFigure]) -> list[str]:
    """What the studies state beside what the shapes give."""
    return [
        f"{row.study}: {row.figure}: {_number(row.stated)} {row.unit} stated, {_number(row.computed)} computed "
        f"({row.note})"
        for row in figures
    ]


def delta_lines(found: DeltaFigures) -> list[str]:
    """A delta in sentences."""
    plain = found.plain_bytes_per_second
    return [
        f"{found.checkpoint} as a difference to {found.base}: {size(found.raw_bytes)} stored in "
        f"{size(found.stored_bytes)} ({found.ratio:.1%}), {'bit for bit' if found.bit_exact else 'NOT EXACT'}",
        f"pulled in {found.read_seconds:.2f} s, {size(found.read_bytes_per_second)}/s"
        + (f" (what is stored whole: {size(plain)}/s)" if plain else ""),
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"
