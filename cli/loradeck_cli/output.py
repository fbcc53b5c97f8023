"""How commands report: JSON for programs, lines and progress for people."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from loradeck_registry.aliases.log import AliasEntry
from loradeck_registry.errors import PreconditionError
from loradeck_registry.query import Filter, Page
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


class Transfer:
    """Is told bytes as they are moved, from any thread, and how many there will be as soon as that is known."""

    def __init__(self, bar: Progress | None, text: str) -> None:
        self._bar = bar
        self._task = bar.add_task(text, total=None) if bar is not None else None

    def expect(self, total: int) -> None:
        """The bytes that there will be."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total)

    def __call__(self, size: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, size)


@contextmanager
def transfer(text: str, total: int | None = None) -> Iterator[Transfer]:
    """A bar of bytes on the terminal's standard error while the block runs; silent elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Transfer(None, text)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        found = Transfer(bar, text)
        if total is not None:
            found.expect(total)
        yield found


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


def verify_json(report: VerifyReport) -> dict[str, Any]:
    """A verification's result."""
    findings = {
        kind: [{"object": finding.object, "why": finding.why} for finding in getattr(report, kind)]
        for kind in ("damaged", "missing", "orphaned")
    }
    counts = {key: getattr(report, key) for key in ("names", "revisions", "aliases", "blobs", "bytes")}
    return {"clean": report.clean} | counts | findings


def name_rows(page: Page) -> list[dict[str, Any]]:
    """One row per name; a name whose newest revision cannot be read says so. An alias has its revision, or the share
    of each of its revisions."""
    rows = []
    for row in page.rows:
        aliases = {alias: _pointed(entry) for alias, entry in row.aliases.items()}
        if row.latest is None:
            rows.append({"name": row.name, "aliases": aliases, "error": row.error})
        else:
            rows.append(revision_json(row.latest) | {"aliases": aliases, "error": None})
    return rows


def _pointed(entry: AliasEntry) -> int | dict[str, float]:
    return {str(target.revision): target.weight for target in entry.targets} if entry.weighted else entry.revision


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
