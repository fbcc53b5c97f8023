"""`loradeck bench swap`: move aliases under a steady load."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from loradeck_cli.bench.serving import swap_alone
from loradeck_cli.connection import connection
from loradeck_cli.number import Number
from loradeck_registry.errors import InvalidError

TASKS = ("classification", "short_qa", "long_qa")

_OF_A_SERVER = {
    "address": "server",
    "admin": "admin",
    "url": "registry",
    "adapter": "adapter",
    "target": "to",
    "task": "task",
}
"""Parameters of `swap` that go together, for the measurement of a running server, and their options."""


@click.command()
@connection
@click.option("--flips", type=click.IntRange(1), default=30, show_default=True, help="Moves, on a server of its own.")
@click.option(
    "--seconds",
    type=Number(1),
    default=20.0,
    show_default=True,
    help="Load alone, in three parts between them.",
)
@click.option("--base", type=click.Path(path_type=Path), help="Base of that server [default: the pocket base].")
@click.option("--server", "address", metavar="HOST:PORT", help="Server to watch: the inference door.")
@click.option("--admin", metavar="HOST:PORT", help="The same server's door for operators.")
@click.option("--registry", "url", envvar="LORADECK_REGISTRY", metavar="URL", help="Folder of its registry.")
@click.option("--adapter", metavar="NAME@ALIAS", help="Alias to move.")
@click.option("--to", "target", metavar="REVISION", help="Where to: revision number, alias or digest.")
@click.option("--task", type=click.Choice(TASKS))
@click.option("--data", metavar="PATH", help="Rows to send [default: the project's own test set of the task].")
@click.option("--rate", type=Number(min=0, min_open=True), default=10.0, show_default=True, help="Requests/s.")
@click.option("--back", is_flag=True, help="Roll the alias back at the end.")
@click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for standard output.")
def swap(flips: int, seconds: float, base: Path | None, json_path: str | None, **running: Any) -> None:
    """Move aliases under a steady load, and count failed and wrong replies and the time of every stage.

    Alone it starts a server of its own with random adapters and moves their aliases in turn. With --server and those
    after it, it moves one alias of a server that runs.
    """
    if any(running[name] for name in _OF_A_SERVER if name != "url"):
        if missing := [f"--{option}" for name, option in _OF_A_SERVER.items() if not running[name]]:
            raise click.UsageError(f"to measure a running server, give {', '.join(missing)} too")
        _swap_on_server(json_path=json_path, **running)
        return
    result = swap_alone(flips, seconds, base, json_path)
    if result["failed"] or result["wrong_revision"] or result["flips_never_answered"]:
        sys.exit(1)


def _swap_on_server(
    *,
    address: str,
    admin: str,
    url: str,
    adapter: str,
    target: str,
    task: str,
    data: str | None,
    rate: float,
    back: bool,
    json_path: str | None,
) -> None:
    from rich.console import Console

    from loradeck_bench.load.plan import LoadPlan
    from loradeck_bench.load.subjects import subjects
    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.swapping import SwapPlan, check_moves
    from loradeck_bench.tables import swap_table
    from loradeck_registry.reference import Reference
    from loradeck_registry.registry import Registry

    ensure_writable(json_path)
    reference = Reference.parse(adapter)
    if reference.alias is None:
        raise InvalidError(f"{adapter!r} names no alias: use NAME@ALIAS", reason="BAD_REFERENCE", field="adapter")
    registry = Registry.open(url)
    load = LoadPlan(subjects([adapter], task, data), duration=600.0, rate=rate)
    plan = SwapPlan(reference.name, reference.alias, load)
    check_moves(plan, registry.resolve(adapter), registry.resolve(f"{plan.name}@{target}"))
    result = asyncio.run(_swap(address, admin, registry, plan, target))
    if back:
        registry.rollback(reference.name, reference.alias, why="end of a swap measurement")
    if json_path:
        write_json(result, json_path)
    Console(stderr=json_path == "-").print(swap_table(result))
    if result["failed"] or result["wrong_revision"] or not result["completed"]:
        sys.exit(1)


async def _swap(address: str, admin: str, registry: Any, plan: Any, target: str) -> dict[str, Any]:
    from loradeck_bench.asking import Asker, connect, wait_flip
    from loradeck_bench.swapping import measure_swap

    async with connect(address) as client:
        result, _ = await measure_swap(
            Asker(client, plan.load.subjects, 120.0),
            wait_flip(admin, plan.name, plan.alias),
            registry,
            plan,
            lambda: registry.resolve(f"{plan.name}@{target}"),
        )
    return result
