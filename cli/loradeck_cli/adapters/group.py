"""`loradeck adapters`: see and change what a server holds."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import click

from loradeck_cli.adapters.fleet import move_on_all, servers
from loradeck_cli.connection import F, connection
from loradeck_cli.number import Number
from loradeck_cli.output import emit, human, line
from loradeck_client import Access, Adapter, AdminClient, AliasFlip, Capacity

_address = click.option(
    "--server",
    default="127.0.0.1:8501",
    envvar="LORADECK_ADMIN_SERVER",
    show_default=True,
    metavar="HOST:PORT",
    help="Admin door.",
)


def _server(function: F) -> F:
    return connection(_address(function))


_json = click.option("--json", "json_path", metavar="PATH", help="Write JSON to PATH, or - for standard output.")
_timeout = click.option("--timeout", type=Number(0, min_open=True), default=120.0, show_default=True, help="Seconds.")


@click.group()
def command() -> None:
    """See and change what a server holds."""


command.add_command(servers)


@command.command(name="list")
@_server
@_json
def list_adapters(server: str, json_path: str | None) -> None:
    """List the adapter revisions that the server knows."""
    with AdminClient(server, access=Access.from_environment()) as client:
        adapters = client.list()
    emit({"adapters": [_plain(adapter) for adapter in adapters]}, json_path, lambda: _table(adapters))


@command.command()
@click.argument("adapter", metavar="REF")
@_server
@_timeout
@_json
def load(adapter: str, server: str, timeout: float, json_path: str | None) -> None:
    """Fetch, check and load REF now."""
    with AdminClient(server, timeout=timeout, access=Access.from_environment()) as client:
        _show(client.load(adapter), json_path)


@command.command()
@click.argument("adapter", metavar="REF")
@_server
@_timeout
@_json
def unload(adapter: str, server: str, timeout: float, json_path: str | None) -> None:
    """Take REF out of the engine once its running requests have ended."""
    with AdminClient(server, timeout=timeout, access=Access.from_environment()) as client:
        _show(client.unload(adapter), json_path)


@command.command()
@click.argument("adapter", metavar="REF")
@_server
@_timeout
@_json
def pin(adapter: str, server: str, timeout: float, json_path: str | None) -> None:
    """Load REF and never evict it; an alias stays pinned across its moves."""
    with AdminClient(server, timeout=timeout, access=Access.from_environment()) as client:
        _show(client.pin(adapter), json_path)


@command.command()
@click.argument("adapter", metavar="REF")
@_server
@_json
def unpin(adapter: str, server: str, json_path: str | None) -> None:
    """End the pins of the revision that REF means."""
    with AdminClient(server, access=Access.from_environment()) as client:
        _show(client.unpin(adapter), json_path)


@command.command()
@click.argument("name")
@click.argument("alias")
@click.argument("target", metavar="REVISION")
@click.option("--expect", type=click.IntRange(0), help="Move only if it points to this revision now; 0: if it is new.")
@click.option("--who", default="", help="Who moves it (default: user@host).")
@click.option("--why", default="", help="Why, for the history.")
@click.option(
    "--wait", "together", is_flag=True, help="Let every live server load and probe it first; then all move, or none."
)
@click.option(
    "--registry", "url", envvar="LORADECK_REGISTRY", metavar="URL", help="With --wait: where the servers are found."
)
@_server
@_timeout
@_json
@click.pass_context
def move(
    context: click.Context,
    name: str,
    alias: str,
    target: str,
    expect: int | None,
    who: str,
    why: str,
    together: bool,
    url: str | None,
    server: str,
    timeout: float,
    json_path: str | None,
) -> None:
    """Load REVISION (7, another alias, sha256:...) on the server, then point NAME's ALIAS at it.

    With --wait, on every server of the registry: each loads and probes it, then all flip, or none does and each one's
    reason is shown. The servers are asked through the registry, so no path to their doors is needed.
    """
    if together:
        if context.get_parameter_source("server") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--wait asks all servers, through the registry: leave --server out")
        move_on_all(url, name, alias, target, expect, who, why, timeout, json_path)
        return
    with AdminClient(server, timeout=timeout, caller=who, access=Access.from_environment()) as client:
        adapter, previous = client.move_alias(name, alias, target, expected_revision=expect, reason=why)
    before = f"revision {previous}" if previous else "nothing"
    said = f"{name}@{alias}: {before} -> revision {adapter.revision} ({adapter.digest[:19]})"
    emit({"adapter": _plain(adapter), "previous_revision": previous}, json_path, lambda: line(said))


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_server
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON.")
def watch(names: tuple[str, ...], server: str, as_json: bool) -> None:
    """Show every change of residency and every alias flip, until Ctrl+C."""
    with AdminClient(server, access=Access.from_environment()) as client:
        for event in client.watch(names):
            if as_json:
                kind = "alias_flip" if isinstance(event, AliasFlip) else "adapter"
                click.echo(json.dumps({kind: _plain(event)}))
            elif isinstance(event, AliasFlip):
                shares = ", ".join(f"{number}={share:.4g}" for number, share in event.shares)
                change = f"{event.previous_revision} -> {shares or event.revision}"
                click.echo(f"{_clock(event.flip_time)}  {event.name}@{event.alias}: {change}")
            else:
                click.echo(f"{_clock(datetime.now().astimezone())}  {_line(event)}")


@command.command()
@click.option("--rank", type=click.IntRange(0), default=0, help="LoRA rank to answer for [default: the largest].")
@_server
@_json
def capacity(rank: int, server: str, json_path: str | None) -> None:
    """Show how many adapters fit."""
    with AdminClient(server, access=Access.from_environment()) as client:
        found = client.capacity(rank)
    emit(asdict(found), json_path, lambda: _fits(found, rank or found.max_rank))


def _show(adapter: Adapter, json_path: str | None) -> None:
    emit(_plain(adapter), json_path, lambda: line(_line(adapter)))


def _fits(found: Capacity, rank: int) -> None:
    if not found.max_rank:
        line("this server serves its base alone, and no adapters: it has no registry, or no slots")
        return
    click.echo(f"slots          {found.slots_used} of {found.slots} used")
    click.echo(f"host memory    {found.host_adapters_used} of {found.host_adapters} adapters")
    click.echo(f"largest rank   {found.max_rank}")
    click.echo(f"one adapter    {human(found.adapter_size_bytes)} at rank {rank}")
    click.echo(f"local cache    {human(found.cache_free_bytes)} free, {found.cache_adapters} such adapters")


def _table(adapters: Sequence[Adapter]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not adapters:
        line("no adapters: those that were asked for, loaded or pinned here are listed")
        return
    table = Table("adapter", "aliases", "task", "rank", "size", "state", "running", "load", "digest")
    for adapter in adapters:
        table.add_row(
            f"{adapter.name}@{adapter.revision}",
            ", ".join(adapter.aliases),
            adapter.task,
            str(adapter.rank),
            human(adapter.size_bytes),
            _state(adapter),
            str(adapter.running_requests),
            f"{adapter.load_seconds * 1000:.1f} ms" if adapter.load_time else "",
            adapter.digest[:19],
        )
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def _line(adapter: Adapter) -> str:
    aliases = f" ({', '.join(adapter.aliases)})" if adapter.aliases else ""
    return f"{adapter.name}@{adapter.revision}{aliases}: {_state(adapter)}, {adapter.digest[:19]}"


def _state(adapter: Adapter) -> str:
    state: str = adapter.state or "in the registry only"
    if adapter.error_reason:
        state += f" {adapter.error_reason}"
    return f"{state}, pinned" if adapter.pinned else state


def _plain(event: Adapter | AliasFlip) -> dict[str, object]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in asdict(event).items()}


def _clock(time: datetime) -> str:
    return time.astimezone().strftime("%H:%M:%S")
