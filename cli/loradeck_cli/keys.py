"""`loradeck keys`: make, show and end the API keys of a server's callers."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loradeck_cli.output import emit, line

if TYPE_CHECKING:
    from collections.abc import Callable

    from loradeck_serve.access.keys import KeyRecord

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """`30d`, `12h`, `15m`, `90s`, or `0`."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([smhd])|0", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no duration: 30d, 12h, 15m, 90s or 0", ctx, param)
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]] if match[1] else 0)


_file = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default="keys.json",
    envvar="LORADECK_KEYS",
    show_default=True,
    help="The file of hashes that the server reads (`access.keys`).",
)
_json = click.option("--json", "json_path", metavar="PATH", help="Write JSON to PATH, or - for standard output.")
_out = click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the key to this new file, for its owner alone, instead of showing it.",
)


@click.group()
def command() -> None:
    """Make, show and end the API keys of a server's callers.

    The file holds salted hashes and never a key. Servers read it again when it changes. What a caller may do is in the
    server's `access.callers`.
    """


@command.command()
@click.argument("caller")
@click.option(
    "--expires", callback=_duration, metavar="TIME", help="How long it is good (90d) [default: until revoked]."
)
@_out
@_file
@_json
def add(caller: str, expires: timedelta | None, out: Path | None, path: Path, json_path: str | None) -> None:
    """Make a key for CALLER and show it, this once."""
    from loradeck_serve.access.keys import KeyFile, utc_now

    if expires is not None and not expires:
        raise click.UsageError("--expires 0: such a key would have ended already")
    now = utc_now()
    with KeyFile(path).changing() as file:
        keys, record, key = file.read().add(caller, now, now + expires if expires is not None else None)
        _hand_out(key, record, out, json_path, lambda: file.write(keys))


@command.command(name="list")
@_file
@_json
def list_keys(path: Path, json_path: str | None) -> None:
    """Show whose keys there are, and whether they are good."""
    from loradeck_serve.access.keys import Keys, utc_now

    now = utc_now()
    records = Keys.read(path).keys
    emit({"keys": [_plain(record, now) for record in records]}, json_path, lambda: _table(records, now))


@command.command()
@click.argument("identifier", metavar="ID")
@_file
@_json
def revoke(identifier: str, path: Path, json_path: str | None) -> None:
    """End a key now: servers refuse it within two seconds, and end the streams that it has open."""
    from loradeck_serve.access.keys import KeyFile, utc_now

    now = utc_now()
    with KeyFile(path).changing(must_exist=True) as file:
        keys = file.existing().revoke(identifier, now)
        file.write(keys)
    record = keys.find(identifier)
    emit(_plain(record, now), json_path, lambda: line(f"{identifier} of {record.caller} is revoked"))


@command.command()
@click.argument("identifier", metavar="ID")
@click.option(
    "--overlap",
    callback=_duration,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old one is good.",
)
@_out
@_file
@_json
def rotate(identifier: str, overlap: timedelta, out: Path | None, path: Path, json_path: str | None) -> None:
    """Make a new key for the caller of key ID, show it, this once, and let the old one end later."""
    from loradeck_serve.access.keys import KeyFile, utc_now

    now = utc_now()
    with KeyFile(path).changing(must_exist=True) as file:
        keys, record, key = file.existing().rotate(identifier, now, now + overlap)
        _hand_out(key, record, out, json_path, lambda: file.write(keys))
        old = keys.find(identifier)
    if json_path is None:
        click.echo(f"{identifier} is good until {old.expires:%Y-%m-%d %H:%M:%S} UTC", err=True)


def _hand_out(key: str, record: KeyRecord, out: Path | None, json_path: str | None, write: Callable[[], None]) -> None:
    """Give the key to whom it is for, then write the file: a key that nobody has seen must not stay in it."""
    import os

    from loradeck_registry.errors import InvalidError

    if out is not None:
        try:
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise InvalidError(f"{out} exists: name a file that does not", field="out") from None
        except OSError as error:
            raise InvalidError(f"cannot write {out}: {error.strerror}", field="out") from None
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
    write()
    shown = {"id": record.id, "caller": record.caller, "expires": record.expires and record.expires.isoformat()}
    if out is None:
        shown["key"] = key
    until = f", good until {record.expires:%Y-%m-%d %H:%M:%S} UTC" if record.expires else ""

    def table() -> None:
        if out is None:
            click.echo(key)
        where = f"in {out}" if out is not None else "shown this once"
        click.echo(f"key {record.id} of {record.caller}, {where}{until}", err=True)

    emit(shown, json_path, table)


def _plain(record: KeyRecord, now: datetime) -> dict[str, object]:
    shown = record.model_dump(mode="json", include={"id", "caller", "created", "expires", "revoked"})
    return {**shown, "state": record.state(now)}


def _table(records: tuple[KeyRecord, ...], now: datetime) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "caller", "state", "created", "expires")
    for record in records:
        ends = f"{record.expires:%Y-%m-%d %H:%M}" if record.expires else "never"
        table.add_row(record.id, record.caller, record.state(now), f"{record.created:%Y-%m-%d %H:%M}", ends)
    Console().print(table)
