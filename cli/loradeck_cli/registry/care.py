"""`loradeck registry gc`, `sign`, `tag`, `note`, `attach` and `protect`: looking after what is published."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from loradeck_cli import output
from loradeck_cli.registry.options import registry_options
from loradeck_registry.attachments import check_tag
from loradeck_registry.collection.collecting import CollectReport
from loradeck_registry.collection.retention import Retention
from loradeck_registry.errors import InvalidError
from loradeck_registry.registry import Registry

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """`90s`, `15m`, `24h`, `7d`, or plain seconds; gives seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration: write 90s, 15m, 24h or 7d", param, ctx)
        return float(match[1]) * _UNITS[match[2] or "s"]


@click.command()
@click.option("--delete", is_flag=True, help="Delete, after the wait and a second look. Without it: dry run.")
@click.option("--keep-last", type=click.IntRange(1), help="Retire all but the newest N revisions of each name.")
@click.option("--keep-aliased/--only-aliased", default=True, help="Keep what a rollback would restore, too.")
@click.option("--keep-tagged/--retire-tagged", default=True, help="Keep revisions with a tag.")
@click.option("--name", "names", multiple=True, help="Retire revisions of these names only.")
@click.option("--grace", type=Duration(), default="24h", show_default=True, help="Keep what is younger.")
@click.option("--wait", type=Duration(), default="15m", show_default=True, help="Between announcing and deleting.")
@registry_options
def gc(
    url: str, json_path: str | None, delete: bool, names: tuple[str, ...], grace: float, wait: float, **rule: Any
) -> None:
    """Find what no revision, alias, lease or grace time keeps; with --delete, delete it."""
    registry = Registry.open(url)
    retention = Retention(names=frozenset(names) if names else None, **rule)
    with output.progress(f"collecting in {registry.url}"):
        report = registry.collect(delete=delete, retention=retention, grace=timedelta(seconds=grace), wait=wait)
    output.emit(_gc_json(report), json_path, lambda: _gc_table(report))


@click.command()
@click.argument("reference")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="EC private key, a PEM file.")
@click.option("--who", default="", help="Who signs (default: user@host).")
@registry_options
def sign(url: str, json_path: str | None, reference: str, key: Path, who: str) -> None:
    """Sign a revision's files and manifest (OpenSSF model signing). LORADECK_SIGN_PASSWORD unlocks the key."""
    registry = Registry.open(url)
    revision = registry.resolve(reference)
    with output.progress(f"signing {revision}"):
        added = registry.sign(revision, key, password=os.environ.get("LORADECK_SIGN_PASSWORD"), who=who)
    result = output.revision_json(revision) | {"signature": added.number, "who": added.who}
    output.emit(result, json_path, lambda: output.line(f"{revision} signed by {added.who} (signature {added.number})"))


@click.command()
@click.argument("reference")
@click.argument("tags", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Take the tags off.")
@click.option("--who", default="", help="Who does it (default: user@host).")
@registry_options
def tag(url: str, json_path: str | None, reference: str, tags: tuple[str, ...], remove: bool, who: str) -> None:
    """Put TAGS on a revision, or take them off."""
    registry = Registry.open(url)
    revision = registry.resolve(reference)
    for text in tags:
        check_tag(text)
    for text in tags:
        registry.tag(revision, text, remove=remove, who=who)
    now = registry.tags(revision)
    result = output.revision_json(revision) | {"tags": now}
    output.emit(result, json_path, lambda: output.line(f"{revision} tags: {', '.join(now) or '-'}"))


@click.command()
@click.argument("reference")
@click.argument("text")
@click.option("--who", default="", help="Who says it (default: user@host).")
@registry_options
def note(url: str, json_path: str | None, reference: str, text: str, who: str) -> None:
    """Add a note to a revision."""
    if not text.strip():
        raise InvalidError("the note is empty: give its text", field="text")
    registry = Registry.open(url)
    revision = registry.resolve(reference)
    added = registry.attach(revision, "note", {"text": text}, who=who)
    result = output.revision_json(revision) | {"note": added.number}
    output.emit(result, json_path, lambda: output.line(f"{revision} note {added.number}"))


@click.command()
@click.argument("reference")
@click.argument("report", type=click.Path(path_type=Path))
@click.option("--who", default="", help="Who evaluated (default: user@host).")
@registry_options
def attach(url: str, json_path: str | None, reference: str, report: Path, who: str) -> None:
    """Attach an evaluation to a revision: REPORT is a JSON file, its numbers are the metrics."""
    from loradeck_registry.attachments import evaluation
    from loradeck_registry.publish import read_json_file

    registry = Registry.open(url)
    revision = registry.resolve(reference)
    added = registry.attach(
        revision, "evaluation", evaluation(read_json_file(report, "evaluation"), revision.digest), who=who
    )
    result = output.revision_json(revision) | {"evaluation": added.number, "metrics": added.content["metrics"]}
    metrics = ", ".join(f"{name} {value:g}" for name, value in added.content["metrics"].items())
    output.emit(result, json_path, lambda: output.line(f"{revision} evaluation {added.number}: {metrics}"))


@click.command()
@click.argument("name")
@click.argument("alias")
@click.option(
    "--rule", "rules", multiple=True, help="As `macro_f1 >= 0.8` or `macro_f1 >= @prod - 0.01`; may be repeated."
)
@click.option("--lift", is_flag=True, help="Take all rules away.")
@click.option("--who", default="", help="Who sets it (default: user@host).")
@click.option("--why", default="", help="Why, for the record.")
@registry_options
def protect(
    url: str, json_path: str | None, name: str, alias: str, rules: tuple[str, ...], lift: bool, who: str, why: str
) -> None:
    """Let NAME's ALIAS point only to revisions whose evaluations pass the rules; without options, show the rules."""
    if lift and rules:
        raise InvalidError("give --rule or --lift, not both", field="rules")
    registry = Registry.open(url)
    if rules or lift:
        registry.protect(name, alias, rules, who=who, why=why)
    now = registry.rules(name, alias)
    result = {"name": name, "alias": alias, "rules": now}
    output.emit(result, json_path, lambda: output.line(f"{name}@{alias} rules: {'; '.join(now) or '-'}"))


def _gc_json(report: CollectReport) -> dict[str, Any]:
    rows = {
        kind: [{"object": item.key, "bytes": item.bytes, "why": item.why} for item in getattr(report, kind)]
        for kind in ("found", "deleted", "kept")
    }
    return {
        "dry_run": report.dry_run,
        "bytes_found": report.bytes_found,
        "bytes_freed": report.bytes_freed,
        "live_leases": report.live_leases,
    } | rows


def _gc_table(report: CollectReport) -> None:
    for item in report.found if report.dry_run else report.deleted:
        output.line(f"{item.key}  {output.human(item.bytes)}  {item.why}")
    for item in report.kept:
        output.line(f"kept: {item.key}  needed again")
    if report.dry_run:
        output.line(
            f"{len(report.found)} objects, {output.human(report.bytes_found)} could be freed; nothing was deleted "
            f"(dry run, {report.live_leases} live leases)"
        )
    else:
        output.line(f"{len(report.deleted)} objects deleted, {output.human(report.bytes_freed)} freed")
