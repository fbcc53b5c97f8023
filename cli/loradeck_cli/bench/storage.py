"""`loradeck bench storage` and `loradeck bench registry`: what is kept costs, and how fast it is found."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from loradeck_cli.number import Number
from loradeck_registry.errors import LoradeckError


@click.command()
@click.option("--registry", "url", envvar="LORADECK_REGISTRY", metavar="URL", help="Measure what this registry holds.")
@click.option(
    "--base", "bases", multiple=True, metavar="ORG/NAME", help="A built-in base [default: the studies']; repeat."
)
@click.option(
    "--config", "configs", multiple=True, type=click.Path(path_type=Path), help="config.json of any base; repeat."
)
@click.option(
    "--rank", "ranks", multiple=True, type=click.IntRange(1, 4096), help="Of adapters [default: 8, 16, 32, 64]."
)
@click.option("--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True)
@click.option("--capacity", type=Number(0, min_open=True), default=280.0, show_default=True, help="GB to fill.")
@click.option(
    "--steps", type=click.IntRange(1), default=30, show_default=True,
    help="Of the training whose checkpoint is stored as a delta, where no registry is given.",
)  # fmt: skip
@click.option("--delta/--no-delta", "with_delta", default=True, show_default=True, help="Measure delta storage.")
@click.option(
    "--json", "json_path", metavar="PATH", is_flag=False, flag_value="-",
    help="Write the result as JSON; - or nothing for standard output.",
)  # fmt: skip
def storage(
    url: str | None,
    bases: tuple[str, ...],
    configs: tuple[Path, ...],
    ranks: tuple[int, ...],
    dtype: str,
    capacity: float,
    steps: int,
    with_delta: bool,
    json_path: str | None,
) -> None:
    """Bytes of bases, checkpoints and adapters: from shapes, as a registry holds them, and as deltas.

    Needs no argument. Without a registry, the delta is that of a short training of all parameters of the pocket base.
    """
    from rich.console import Console

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.report.units import size
    from loradeck_bench.storage import storage_report
    from loradeck_bench.storage.shapes import BYTES, RANKS, by_shape, find_base, read_base, size_rows
    from loradeck_bench.storage.studies import study_figures
    from loradeck_bench.storage.tables import delta_lines, size_table, study_lines
    from loradeck_bench.tables import storage_table
    from loradeck_registry.bases.known import KNOWN_BASES
    from loradeck_registry.registry import Registry

    ensure_writable(json_path)
    console = Console(stderr=json_path == "-")
    chosen = [find_base(name) for name in bases] + [read_base(path) for path in configs]
    chosen = chosen or list(KNOWN_BASES.values())
    room = int(capacity * 10**9)
    tables = [size_rows(base, ranks or RANKS, BYTES[dtype], room) for base in chosen]
    held = storage_report(Registry.open(url)) if url else None
    rows: list[dict[str, Any]] = [row | {"source": "registry"} for row in held["rows"]] if held else []
    rows += [asdict(row) | {"source": "shapes"} for table in tables for row in table]
    result: dict[str, Any] = {"rows": rows, "studies": [asdict(figure) for figure in study_figures()]}
    if held is not None:
        result |= {"bytes": held["bytes"], "bytes_stored_once": held["bytes_stored_once"]}
        console.print(storage_table(held["rows"]))
        console.print(
            f"{size(held['bytes'])} in all revisions, {size(held['bytes_stored_once'])} stored "
            "(equal files once, checkpoints as differences to their base)",
            highlight=False,
        )
    for names, table in by_shape(tables):
        console.print(size_table(names, table, room))
    for line in study_lines(study_figures()):
        console.print(line, highlight=False, soft_wrap=True)
    found, why = _delta(url, steps, console) if with_delta else (None, "not asked for")
    result["delta"] = asdict(found) if found else None
    result["delta_missing"] = why
    for line in delta_lines(found) if found else [f"no delta measured: {why}"]:
        console.print(line, highlight=False)
    if json_path:
        write_json(result, json_path)


def _delta(url: str | None, steps: int, console: Any) -> tuple[Any, str | None]:
    """The figures, or None and why there are none."""
    from loradeck_bench.storage.delta import newest_delta, pocket_delta
    from loradeck_registry.registry import Registry

    if url is not None:
        found = newest_delta(Registry.open(url))
        return found, None if found else f"no full checkpoint in {url} is stored as a delta"
    try:
        found = pocket_delta(steps, lambda text: console.print(text, highlight=False))
    except LoradeckError as error:
        if error.reason != "MISSING_PACKAGE":
            raise
        return None, error.message
    return found, None if found else "the checkpoint did not get smaller as a delta"


@click.command("registry")
@click.option("--names", type=click.IntRange(1), default=10_000, show_default=True, help="Names in the registry.")
@click.option("--revisions", type=click.IntRange(1), default=5, show_default=True, help="Revisions of each.")
@click.option("--lookups", type=click.IntRange(1), default=2_000, show_default=True, help="References resolved.")
@click.option("--json", "json_path", metavar="PATH", is_flag=False, flag_value="-", help="Write the result as JSON.")
def registry_speed(names: int, revisions: int, lookups: int, json_path: str | None) -> None:
    """How fast a large registry resolves, lists and is watched, on the local disk."""
    from rich.console import Console

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_registry.benchmark import lines, measure

    ensure_writable(json_path)
    console = Console(stderr=json_path == "-")
    with tempfile.TemporaryDirectory(prefix="loradeck-benchmark-") as folder:
        result = measure(Path(folder), names, revisions, lookups)
        # Before the folder goes: that takes longer than all of it.
        for line in lines(result):
            console.print(line, highlight=False)
        if json_path:
            write_json(result, json_path)
