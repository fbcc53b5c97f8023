"""`loradeck registry list` and `show`: finding revisions, and all about one."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from loradeck_cli import output
from loradeck_cli.registry import tables
from loradeck_cli.registry.options import registry_options
from loradeck_registry.aliases.gates import Rule
from loradeck_registry.errors import InvalidError
from loradeck_registry.query import Filter, find, lineage
from loradeck_registry.registry import Registry


@click.command("list")
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice(["adapter", "full", "base"]), help="Of this kind.")
@click.option("--base", metavar="PATTERN", help="Of this base: its reference (* and ? match), or a digest.")
@click.option("--task", help="Made for this kind of task.")
@click.option("--author", metavar="PATTERN", help="By this author (* and ? match).")
@click.option("--tag", "tags", multiple=True, help="With this tag; repeat for several.")
@click.option("--since", help="Created at or after this time (2025-01-31, or with T12:00 and an offset; UTC if none).")
@click.option("--until", help="Created before this time.")
@click.option("--metric", "metrics", multiple=True, help="Whose evaluation passes, as `macro_f1 >= 0.8`.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Most rows of a page.")
@click.option("--after", default="", metavar="NAME", help="Go on after this name.")
@registry_options
def list_(
    url: str,
    json_path: str | None,
    name: str | None,
    since: str | None,
    until: str | None,
    metrics: tuple[str, ...],
    limit: int,
    after: str,
    **wanted: Any,
) -> None:
    """List names, or the revisions of NAME, page by page. Filters look at revisions; of names, at the newest."""
    rules = tuple(Rule.parse(text) for text in metrics)
    chosen = Filter(since=_time(since, "since"), until=_time(until, "until"), metrics=rules, **wanted)
    registry = Registry.open(url)
    if name is None:
        page = find(registry, chosen, limit=limit, after=after)
        rows = output.name_rows(page)
        result = {"names": rows, "next": page.following}
        output.emit(result, json_path, lambda: tables.name_table(rows, registry.url, page.following))
        return
    if after:
        raise InvalidError("--after is for the list of names", field="after")
    revisions = output.revision_rows(registry, name, chosen, limit)
    output.emit({"name": name, "revisions": revisions}, json_path, lambda: tables.revision_table(revisions, name))


@click.command()
@click.argument("reference")
@registry_options
def show(url: str, json_path: str | None, reference: str) -> None:
    """Show one revision: base, files, task, provenance, attachments, and the moves of aliases to it."""
    registry = Registry.open(url)
    revision = registry.resolve(reference)
    found = registry.aliases(revision.name).items()
    aliases = [alias for alias, entry in found if any(t.revision == revision.number for t in entry.targets)]
    record = registry.record(revision)
    came = lineage(registry, revision)
    result = output.revision_json(revision) | {
        "aliases": aliases,
        "tags": registry.tags(revision),
        "record": record,
        "lineage": {
            "data": came.data,
            "run": came.run,
            "parents": came.parents,
            "moves": [output.alias_json(entry) for entry in came.moves],
        },
        "attachments": [asdict(entry) for entry in came.attachments],
        "manifest": revision.manifest.model_dump(mode="json", exclude_none=True),
    }
    output.emit(result, json_path, lambda: tables.show(revision, aliases, record, came))


def _time(text: str | None, field: str) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidError(f"bad time {text[:40]!r}: write 2025-01-31 or 2025-01-31T12:00+01:00", field=field) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
