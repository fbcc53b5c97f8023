"""What `loradeck registry` prints: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loradeck_registry.aliases import AliasEntry
from loradeck_registry.comparing import Comparison
from loradeck_registry.errors import PreconditionError
from loradeck_registry.query import Filter, Lineage, Page
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.verify import VerifyReport


def emit(result: dict[str, Any], json_path: str | None, table: Callable[[], None]) -> None:
    """JSON to standard output for `-`, else the table, and the JSON to its file if one is named."""
    text = json.dumps(result, indent=2, ensure_ascii=False, default=str)
    if json_path == "-":
        sys.stdout.write(text + "\n")
        return
    table()
    if json_path is not None:
        try:
            Path(json_path).write_text(text + "\n")
        except OSError as error:
            raise PreconditionError(f"cannot write {json_path}: {error.strerror}") from error


def line(text: str) -> None:
    """One line, not folded."""
    Console().print(text, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """A spinner on the terminal's standard error while the block runs; silent elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def human(size: int) -> str:
    """Bytes for people: 1.4 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def revision_json(revision: Revision) -> dict[str, Any]:
    """A revision's key facts."""
    manifest = revision.manifest
    return {
        "name": revision.name,
        "revision": revision.number,
        "digest": revision.digest,
        "kind": manifest.kind,
        "base": manifest.base.reference,
        "task": (manifest.task or {}).get("kind"),
        "rank": manifest.lora.rank if manifest.lora else None,
        "size_bytes": manifest.size,
        "create_time": manifest.create_time.isoformat(),
    }


def alias_json(entry: AliasEntry) -> dict[str, Any]:
    """An entry of an alias log."""
    return {
        "name": entry.name,
        "alias": entry.alias,
        "number": entry.number,
        "revision": entry.revision,
        "digest": entry.digest,
        "who": entry.who,
        "when": entry.when.isoformat(),
        "why": entry.why,
    } | ({"targets": [asdict(target) for target in entry.targets]} if entry.weighted else {})


def points(entry: AliasEntry) -> str:
    """Where an alias points: `7`, or `7=0.9, 8=0.1`."""
    if not entry.weighted:
        return str(entry.revision)
    return ", ".join(f"{target.revision}={target.weight:.4g}" for target in entry.targets)


def verify_json(report: VerifyReport) -> dict[str, Any]:
    """A verification's result."""
    findings = {
        kind: [{"object": finding.object, "why": finding.why} for finding in getattr(report, kind)]
        for kind in ("damaged", "missing", "orphaned")
    }
    counts = {key: getattr(report, key) for key in ("names", "revisions", "aliases", "blobs", "bytes")}
    return {"clean": report.clean} | counts | findings


def name_rows(page: Page) -> list[dict[str, Any]]:
    """One row per name; a name whose newest revision cannot be read says so."""
    rows = []
    for row in page.rows:
        aliases = {alias: entry.revision for alias, entry in row.aliases.items()}
        if row.latest is None:
            rows.append({"name": row.name, "aliases": aliases, "error": row.error})
        else:
            rows.append(revision_json(row.latest) | {"aliases": aliases, "error": None})
    return rows


def revision_rows(registry: Registry, name: str, wanted: Filter, limit: int) -> list[dict[str, Any]]:
    """One row per revision of a name that fits, the newest first."""
    aliases = registry.aliases(name)
    rows: list[dict[str, Any]] = []
    for revision in reversed(registry.revisions(name)):
        if len(rows) == limit:
            break
        if wanted.matches(registry, revision):
            mine = [a for a, entry in aliases.items() if any(t.revision == revision.number for t in entry.targets)]
            rows.append(revision_json(revision) | {"aliases": mine})
    return rows


def name_table(rows: list[dict[str, Any]], url: str, following: str | None) -> None:
    """Names with their newest revision, and how to get the next page."""
    if not rows:
        line(f"nothing to list in the registry {url}: it is empty, or nothing fits")
        return
    table = _table("name", "kind", "latest", "aliases", "task", "rank", "size", "base")
    for row in rows:
        aliases = ", ".join(f"{alias}={revision}" for alias, revision in row["aliases"].items())
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
    Console().print(table)
    if following is not None:
        line(f"more with --after {following}")


def revision_table(rows: list[dict[str, Any]], name: str) -> None:
    """Revisions of one name."""
    table = _table("revision", "aliases", "created", "size", "digest", title=name)
    for row in rows:
        created = row["create_time"].partition(".")[0].replace("T", " ")
        table.add_row(
            str(row["revision"]), ", ".join(row["aliases"]), created, human(row["size_bytes"]), row["digest"][:19]
        )
    Console().print(table)


def alias_table(entries: list[AliasEntry], title: str) -> None:
    """Alias entries."""
    table = _table("#", "alias", "revision", "who", "when", "why", title=title)
    for entry in entries:
        when = f"{entry.when:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(entry.number), entry.alias, points(entry), entry.who, when, entry.why)
    Console().print(table)


def show(revision: Revision, aliases: list[str], record: dict[str, Any], came: Lineage) -> None:
    """One revision in full, long values cut, and its lineage."""
    manifest = revision.manifest
    table = _table("", "", title=str(revision), header=False)
    table.add_row("digest", revision.digest)
    table.add_row("kind", manifest.kind)
    table.add_row("aliases", ", ".join(aliases) or "-")
    table.add_row("created", f"{manifest.create_time:%Y-%m-%d %H:%M:%S} by {record.get('author') or '-'}")
    table.add_row("reason", str(record.get("reason") or "-"))
    table.add_row("base", f"{manifest.base.reference} ({manifest.base.digest[:19]})")
    if manifest.lora:
        lora = manifest.lora
        table.add_row("LoRA", f"rank {lora.rank}, {lora.dtype}, on {', '.join(lora.target_modules)}")
    for key, value in (manifest.task or {}).items():
        table.add_row(f"task.{key}", _short(value))
    for key, value in manifest.provenance.items():
        table.add_row(key, _short(value))
    table.add_row("probe", "yes" if manifest.probe else "none")
    table.add_row("licence", manifest.licence or "-")
    for file in manifest.files:
        table.add_row("file", f"{file.path}  {human(file.size)}  {file.sha256[:12]}")
    for item in came.attachments:
        content = ["by " + item.who] if item.kind == "signature" else list(item.content.values())
        table.add_row(item.kind, _short(content[0] if len(content) == 1 else item.content))
    for entry in came.moves:
        table.add_row(
            "move", f"{entry.when:%Y-%m-%d %H:%M:%S} {entry.alias} -> {points(entry)} by {entry.who}: {entry.why}"
        )
    Console().print(table)


def pushed(revision: Revision) -> None:
    """The line after a push."""
    line(f"{revision} {revision.manifest.kind} {human(revision.manifest.size)} {revision.digest}")


def moved(entry: AliasEntry) -> None:
    """The line after an alias move."""
    if entry.weighted:
        line(f"{entry.name}@{entry.alias} -> {points(entry)}")
    else:
        line(f"{entry.name}@{entry.alias} -> {entry.name}@{entry.revision} {entry.digest[:19]}")


def verify_table(report: VerifyReport) -> None:
    """Counts, then every finding."""
    line(
        f"{report.names} names, {report.revisions} revisions, {report.aliases} aliases, {report.blobs} blobs, "
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
        table = _table("field", left, right)
        for path, (one, two) in found.fields.items():
            table.add_row(path, _short(one), _short(two))
        Console().print(table)
    for path, (sha_one, sha_two) in found.files.items():
        line(f"{path}: {(sha_one or 'absent')[:12]} | {(sha_two or 'absent')[:12]}")
    if found.modules:
        table = _table("module (farthest apart first)", f"norm {left}", f"norm {right}", "difference", "relative")
        for item in sorted(found.modules, key=lambda item: -item.relative)[:10]:
            values = (item.left, item.right, item.difference, item.relative)
            table.add_row(item.module, *(f"{value:.4g}" for value in values))
        Console().print(table)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _table(*columns: str, title: str | None = None, header: bool = True) -> Table:
    table = Table(title=title, show_header=header, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
