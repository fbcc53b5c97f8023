"""`loradeck study data`: bring the data of a study into place, or say what is there and how to get the rest."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from loradeck_bench.study.data.place import Placed


@click.command("data")
@click.argument("study")
@click.option(
    "--from", "source", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
    help="Folder with the sets, each in a folder of its own or one in DIR itself.",
)  # fmt: skip
@click.option("--fetch", "fetching", is_flag=True, help="Fetch the public ones from where they are published.")
@click.option("--set", "only", multiple=True, metavar="NAME", help="This set only; may be repeated.")
@click.option(
    "--mirror", metavar="URL", help="Fetch files from here instead of their hosts; the hub's mirror is HF_ENDPOINT."
)
@click.option("--other-version", "other", is_flag=True, help="Take files whose digest or rows are not the known ones.")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("build/studies"), show_default=True,
    help="Folder of the studies; data go to STUDY/data in it.",
)  # fmt: skip
@click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for standard output.")
def command(
    study: str,
    source: Path | None,
    fetching: bool,
    only: tuple[str, ...],
    mirror: str | None,
    other: bool,
    work: Path,
    json_path: str | None,
) -> None:
    """Bring the data of STUDY into place, checked: digests, rows, columns. Without a source: say what is there.

    Nothing of it is shipped but samples of GSM8K (MIT) and WikiSQL (BSD-3-Clause); mind each set's licence.
    """
    from rich.console import Console

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.study.data.fetch import fetch
    from loradeck_bench.study.data.place import bring, chosen, how_to_get, there
    from loradeck_registry.errors import LoradeckError, UnavailableError

    if source is not None and fetching:
        raise click.UsageError("give --from DIR or --fetch, not both")
    if mirror is not None and not fetching:
        raise click.UsageError("--mirror belongs to --fetch")
    ensure_writable(json_path)
    into = work / study / "data"
    sets = chosen(study, only)
    placed: list[Placed] = []
    failed: dict[str, LoradeckError] = {}
    console = Console(stderr=json_path == "-", highlight=False)
    if source is not None:
        placed = bring(study, source, into, only=only, other=other)
    elif fetching:
        placed, failed = fetch(study, into, only=only, mirror=mirror, other=other, say=console.print)
    if placed:
        console.print(_table(placed))
        console.print(f"in {into}")
    rest = {name: data for name, data in sets.items() if not there(into, name, data)}
    for name in (name for name in sets if name not in rest and not placed):
        console.print(f"there: {name} ({sets[name].licence})")
    for name, data in rest.items():
        console.print(f"missing: {name}: {data.what} ({data.licence})")
        console.print(f"         get it: {how_to_get(study, name, data)}{'; no run needs it' if data.optional else ''}")
    if json_path:
        write_json(_report(placed, list(rest), failed), json_path)
    if failed:
        lines = "; ".join(f"{name}: {error.message}" for name, error in failed.items())
        raise UnavailableError(f"{len(failed)} of {len(failed) + len(placed)} sets did not come: {lines}")


def _table(placed: "list[Placed]") -> Any:
    from rich.table import Table

    table = Table()
    for column in ("set", "file", "rows", "sha256", "licence"):
        table.add_column(column, justify="right" if column == "rows" else "left", overflow="fold")
    for one in placed:
        for number, file in enumerate(one.files):
            table.add_row(
                one.name if number == 0 else "",
                file.name,
                "" if file.rows is None else f"{file.rows:,}",
                f"{file.sha256[:12]} ({'as known' if file.known else 'not compared'})",
                one.licence if number == 0 else "",
            )
    return table


def _report(placed: "list[Placed]", missing: list[str], failed: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "placed": [asdict(one) for one in placed],
        "missing": missing,
        "failed": {name: error.message for name, error in failed.items()},
    }
