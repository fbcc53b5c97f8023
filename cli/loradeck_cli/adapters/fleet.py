"""`loradeck adapters move --wait` and `adapters servers`: all servers of one registry, reached through it alone."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import click

from loradeck_cli.output import emit, line
from loradeck_cli.registry.options import registry_options
from loradeck_registry.errors import PreconditionError
from loradeck_registry.fleet.members import Member
from loradeck_registry.fleet.moving import Standing, Together, plain
from loradeck_registry.registry import Registry

_MEANS = {
    "waiting": "loading",
    "elsewhere": "has another base",
    "gone": "died or left",
    "silent": "did not answer in time",
}


def move_on_all(
    url: str | None, name: str, alias: str, target: str, expect: int | None, who: str, why: str, seconds: float,
    json_path: str | None,
) -> None:  # fmt: skip
    """Move an alias in two phases, showing each server. Raises PreconditionError (FLEET_REFUSED) if nothing moved."""
    if not url:
        raise click.UsageError("--wait asks the servers through their registry: add --registry, or set it by "
                               "LORADECK_REGISTRY")  # fmt: skip
    registry = Registry.open(url)
    shown: dict[str, str] = {}

    def show(standings: Sequence[Standing]) -> None:
        for standing in standings:
            if shown.get(standing.server) != standing.state:
                shown[standing.server] = standing.state
                click.echo(_line(standing), err=True)

    together = registry.move_together(
        name, alias, target, expect=expect, who=who, why=why, seconds=seconds, progress=show
    )
    show(together.servers)
    emit(dict(plain(together)), json_path, lambda: _say(together))
    if together.entry is None:
        blocking = "; ".join(f"{s.server}: {s.reason or _MEANS[s.state]}" for s in together.blocking)
        where = f"stays at revision {together.previous}" if together.previous else "was not made"
        raise PreconditionError(
            f"{name}@{alias} {where} on every server, because of {blocking}; mend that, or leave the server out and "
            "try again",
            reason="FLEET_REFUSED",
        )


@click.command()
@registry_options
def servers(url: str, json_path: str | None) -> None:
    """List the servers that live on the registry."""
    found = Registry.open(url).members()
    emit({"servers": [_plain(member) for member in found]}, json_path, lambda: _table(found))


def _say(together: Together) -> None:
    before = f"revision {together.previous}" if together.previous else "nothing"
    now = f"revision {together.revision} ({together.digest[:19]})"
    if together.entry is not None:
        flipped = sum(standing.state == "flipped" for standing in together.servers)
        late = sum(standing.state == "ready" for standing in together.servers)
        count = f"{flipped} server{'' if flipped == 1 else 's'}"
        line(f"{together.name}@{together.alias}: {before} -> {now} on {count}"
             + (f"; {late} ready and not heard of since, which follow within seconds" if late else ""))  # fmt: skip


def _line(standing: Standing) -> str:
    took = f" in {standing.seconds:.2f} s" if standing.state == "ready" else ""
    why = f": {standing.reason}: {standing.message}" if standing.state == "refused" else ""
    return f"{standing.server}  {_MEANS.get(standing.state, standing.state)}{took}{why}"


def _plain(member: Member) -> dict[str, object]:
    return asdict(member) | {"since": member.since.isoformat(), "expires": member.expires.isoformat()}


def _table(found: Sequence[Member]) -> None:
    if not found:
        line("no server has told the registry that it lives")
    for member in found:
        age = (datetime.now(UTC) - member.expires).total_seconds() + member.ttl
        since = member.since.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        late = "" if age <= member.ttl else ", late"
        line(f"{member.id}  {member.base}  since {since}, heard of {max(age, 0):.0f} s ago{late}")
