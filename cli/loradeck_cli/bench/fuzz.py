"""`loradeck bench fuzz`: mutated requests to a server, mutated objects to the registry's reader."""

import sys
from pathlib import Path

import click

from loradeck_registry.errors import InvalidError


@click.command()
@click.option("--requests", type=click.IntRange(0), default=100_000, show_default=True, help="Sent to the doors.")
@click.option("--objects", type=click.IntRange(0), default=10_000, show_default=True, help="Given to the reader.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed sends the same.")
@click.option("--base", type=click.Path(path_type=Path), help="Folder of a base [default: the pocket base].")
@click.option("--server", "address", metavar="HOST:PORT", help="A server that runs: its inference door.")
@click.option("--admin", metavar="HOST:PORT", help="Its admin door. Its adapters are loaded, pinned and moved.")
@click.option("--pid", type=int, help="Its process, whose memory is watched.")
@click.option("--adapter", "adapters", multiple=True, metavar="TASK=NAME", help="An adapter it has. Repeatable.")
@click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for standard output.")
def fuzz(
    requests: int,
    objects: int,
    seed: int,
    base: Path | None,
    address: str | None,
    admin: str | None,
    pid: int | None,
    adapters: tuple[str, ...],
    json_path: str | None,
) -> None:
    """Send mutated requests to a server of its own, and mutated objects to the registry's reader.

    Nothing may crash, hang, or tell of the inside (traces, types of exceptions, places of the machine), and memory must
    stay where it is. Exit code 1 otherwise. With --server it is a server that you run, which nobody else needs.
    """
    from rich.console import Console

    from loradeck_bench.extra import ENGINE, require
    from loradeck_bench.fuzz.attempts import Names
    from loradeck_bench.fuzz.run import NAMES, FuzzPlan, Target, failures, measure_fuzz
    from loradeck_bench.fuzz.table import fuzz_table
    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_pocket import BASE

    if (address is None) != (admin is None):
        raise click.UsageError("--server and --admin go together")
    ensure_writable(json_path)
    target = None
    if address is not None and admin is not None:
        names: dict[str, tuple[str, ...]] = {}
        for adapter in adapters:
            task, _, name = adapter.partition("=")
            if task not in Names.__dataclass_fields__ or not name:
                raise InvalidError(
                    f"--adapter takes TASK=NAME ({', '.join(Names.__dataclass_fields__)}), not {adapter}"
                )
            names[task] = (*names.get(task, ()), name)
        target = Target(address, admin, Names(**names) if names else NAMES, pid)
    elif requests:
        require(ENGINE)
    console = Console(stderr=True)
    result = measure_fuzz(base or BASE, FuzzPlan(requests=requests, objects=objects, seed=seed), console, target)
    if json_path is not None:
        write_json(result, json_path)
    Console(stderr=json_path == "-").print(fuzz_table(result))
    if found := failures(result):
        click.echo(f"error: fuzzing found: {'; '.join(found)}", err=True)
        sys.exit(1)
