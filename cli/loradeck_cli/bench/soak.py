"""`loradeck bench soak`: one server under mixed, hostile load for long."""

import sys
from pathlib import Path

import click

from loradeck_cli.number import Number


@click.command()
@click.option(
    "--minutes",
    type=Number(0.5),
    default=30.0,
    show_default=True,
    help="Of measured load; a tenth more to warm up, and a minute or two around it.",
)
@click.option("--base", type=click.Path(path_type=Path), help="Folder of a base [default: the pocket base].")
@click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for standard output.")
def soak(minutes: float, base: Path | None, json_path: str | None) -> None:
    """Load a server of its own with everything at once, and look what is wrong or left afterwards.

    The base, 16 adapters on 4 slots, revisions that come and go, streams that are cancelled, deadlines that expire,
    adapters that cannot be served, and a caller that floods. Every reply is compared with the one that was given to a
    lone request. Exit code 1 unless there was no crash, hang, wrong token or leak, memory grew by less than 2 %, and
    the 99th percentile of the last third is within 1.2 times that of the first.
    """
    from rich.console import Console

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.soak.plan import SoakPlan
    from loradeck_bench.soak.run import failures, measure_soak
    from loradeck_bench.soak.table import soak_table
    from loradeck_pocket import BASE

    ensure_writable(json_path)
    console = Console(stderr=True)
    result = measure_soak(base or BASE, SoakPlan(minutes=minutes), console)
    if json_path:
        write_json(result, json_path)
    Console(stderr=json_path == "-").print(soak_table(result))
    if found := failures(result):
        click.echo(f"error: the soak failed: {'; '.join(found)}", err=True)
        sys.exit(1)
