"""What `loradeck registry` prints for people: tables, a revision in full, and what an operation did."""

import json
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from loradeck_cli.output import human, line
from loradeck_registry.aliases.log import AliasEntry
from loradeck_registry.query import Lineage
from loradeck_registry.registry import Revision
from loradeck_registry.transfer.comparing import Comparison
from loradeck_registry.verify import VerifyReport


def _target(to: int | dict[str, float]) -> str:
    if isinstance(to, int):
        return str(to)
    return "/".join(f"{revision}:{share:.4g}" for revision, share in to.items())


def name_table(rows: list[dict[str, Any]], url: str, following: str | None) -> None:
    """Names with their newest revision, and how to get the next page."""
    if not rows:
        line(f"nothing to list in the registry {url}: it is empty, or nothing fits")
        return
    table = _table("name", "kind", "latest", "*aliases", "*task", "rank", "size", "*base")
    for row in rows:
        aliases = ", ".join(f"{alias}={_target(to)}" for alias, to in row["aliases"].items())
        if row["error"]:
            table.add_row(row["name"], "damaged", "", aliases, "", "", "", row["error"])
            continue
        table.add_row(
            row["name"],
            row["kind"],
            str(row["revision"]),
            aliases,
            row["task"] or "",
            "" if row["rank"] is None else str(row["rank"]),
            human(row["size_bytes"]),
            row["base"],
        )
    _print(table)
    if following is not None:
        line(f"more with --after {following}")


def revision_table(rows: list[dict[str, Any]], name: str) -> None:
    """Revisions of one name."""
    table = _table("revision", "*aliases", "created", "size", "digest", title=name)
    for row in rows:
        created = row["create_time"].partition(".")[0].replace("T", " ")
        table.add_row(
            str(row["revision"]), ", ".join(row["aliases"]), created, human(row["size_bytes"]), row["digest"][:19]
        )
    _print(table)


def alias_table(entries: list[AliasEntry], title: str) -> None:
    """Alias entries."""
    table = _table("#", "alias", "*revision", "*who", "when", "*why", title=title)
    for entry in entries:
        when = f"{entry.when:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(entry.number), entry.alias, entry.pointed, entry.who, when, entry.why)
    _print(table)


def show(revision: Revision, aliases: list[str], record: dict[str, Any], came: Lineage) -> None:
    """One revision in full, long values cut, and its lineage: a fact a line."""
    facts = [*_facts(revision, aliases, record), *_history(revision, came)]
    width = max(len(key) for key, _ in facts)
    line(str(revision))
    for key, value in facts:
        line(f"  {key:{width}}  {value}")


def _facts(revision: Revision, aliases: list[str], record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    manifest = revision.manifest
    yield "digest", revision.digest
    yield "kind", manifest.kind
    yield "aliases", ", ".join(aliases) or "-"
    yield "created", f"{manifest.create_time:%Y-%m-%d %H:%M:%S} by {record.get('author') or '-'}"
    yield "why", str(record.get("reason") or "-")
    yield (
        "base",
        (f"{manifest.base.reference} ({manifest.base.digest[:19]}, compatibility {manifest.base.compatibility[:19]})"),
    )
    if manifest.lora:
        yield "LoRA", f"rank {manifest.lora.rank}, {manifest.lora.dtype}, on {', '.join(manifest.lora.target_modules)}"
    for key, value in (manifest.task or {}).items():
        yield f"task.{key}", _short(value)
    for key, value in manifest.provenance.items():
        yield key, _short(value)
    yield "probe", "yes" if manifest.probe else "none"
    yield "licence", manifest.licence or "-"


def _history(revision: Revision, came: Lineage) -> Iterator[tuple[str, str]]:
    for file in revision.manifest.files:
        yield "file", f"{file.path}  {human(file.size)}  {file.sha256[:12]}"
    for item in came.attachments:
        content = ["by " + item.who] if item.kind == "signature" else list(item.content.values())
        yield item.kind, _short(content[0] if len(content) == 1 else item.content)
    for entry in came.moves:
        yield "move", f"{entry.when:%Y-%m-%d %H:%M:%S} {entry.alias} -> {entry.pointed} by {entry.who}: {entry.why}"


def pushed(revision: Revision) -> None:
    """The line after a push."""
    line(f"{revision} {revision.manifest.kind} {human(revision.manifest.size)} {revision.digest}")
    if revision.manifest.kind == "adapter" and revision.manifest.task is None:
        line("- it has no task, and no server will load it: push it again with --task FILE")


def moved(entry: AliasEntry) -> None:
    """The line after an alias move."""
    if entry.weighted:
        line(f"{entry.name}@{entry.alias} -> {entry.pointed}")
    else:
        line(f"{entry.name}@{entry.alias} -> {entry.name}@{entry.revision} {entry.digest[:19]}")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def verify_table(report: VerifyReport) -> None:
    """Counts, then every finding."""
    line(
        f"{_count(report.names, 'name')}, {_count(report.revisions, 'revision')}, "
        f"{_count(report.aliases, 'alias', 'aliases')}, {_count(report.blobs, 'blob')}, "
        f"{human(report.bytes)}: {'clean' if report.clean else 'NOT CLEAN'}"
    )
    for kind in ("damaged", "missing", "orphaned"):
        for finding in getattr(report, kind):
            line(f"{kind}: {finding.object}: {finding.why}")


def comparison(left: str, right: str, found: Comparison) -> None:
    """Fields that differ, files that differ, and the modules farthest apart."""
    if not found.fields and not found.files:
        line(f"{left} and {right} are equal but for their times")
        return
    if found.fields:
        table = _table("*field", f"*{left}", f"*{right}")
        for path, (one, two) in found.fields.items():
            table.add_row(path, _short(one), _short(two))
        _print(table)
    for path, (sha_one, sha_two) in found.files.items():
        line(f"{path}: {(sha_one or 'absent')[:12]} | {(sha_two or 'absent')[:12]}")
    if found.modules:
        table = _table("*module (farthest apart first)", f"*norm {left}", f"*norm {right}", "difference", "relative")
        for item in sorted(found.modules, key=lambda item: -item.relative)[:10]:
            values = (item.left, item.right, item.difference, item.relative)
            table.add_row(item.module, *(f"{value:.4g}" for value in values))
        _print(table)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _table(*columns: str, title: str | None = None) -> Table:
    """Columns of prose (`*why`) fold between words where the terminal is narrow; all others stay in one piece."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column.removeprefix("*"), overflow="fold", no_wrap=not column.startswith("*"))
    return table


def _print(table: Table) -> None:
    """As wide as the terminal; in a file or a pipe as wide as it is."""
    console = Console()
    if not console.is_terminal:
        console.width = 1000
    console.print(table)
