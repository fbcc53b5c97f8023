"""Queries: names by what their newest revision is, page by page, and the lineage of one revision."""

import gc
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from loradeck_registry.aliases.gates import Rule
from loradeck_registry.aliases.log import AliasEntry
from loradeck_registry.attachments import KINDS, Attachment
from loradeck_registry.errors import InvalidError, LoradeckError
from loradeck_registry.reference import check_name
from loradeck_registry.registry import Registry, Revision

_BATCH = 256
_AT_ONCE = 16
_RUN = ("recipe", "seed", "packages", "hardware", "seconds", "tokens", "import", "source")


@dataclass(frozen=True)
class Filter:
    """What a revision must be; what is None or empty does not matter. `base` and `author` may hold * and ?."""

    kind: str | None = None
    base: str | None = None
    """The base's reference, digest, or compatibility digest."""
    task: str | None = None
    author: str | None = None
    tags: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    metrics: tuple[Rule, ...] = ()
    """Over attached evaluations; rules against aliases are refused."""

    def __post_init__(self) -> None:
        for rule in self.metrics:
            if rule.alias is not None:
                raise InvalidError(f"{rule.text}: a filter compares with a number", field="metric")

    def matches(self, registry: Registry, revision: Revision) -> bool:
        """Whether the revision is so. Attachments are read only where they are asked for, and last."""
        manifest = revision.manifest
        base = (manifest.base.reference, manifest.base.digest, manifest.base.compatibility)
        if self.kind is not None and manifest.kind != self.kind:
            return False
        if self.base is not None and not any(fnmatchcase(text, self.base) for text in base):
            return False
        if self.task is not None and (manifest.task or {}).get("kind") != self.task:
            return False
        if self.since is not None and manifest.create_time < self.since:
            return False
        if self.until is not None and manifest.create_time >= self.until:
            return False
        if self.author is not None:
            author = registry.record(revision).get("author") or manifest.author or ""
            if not fnmatchcase(str(author), self.author):
                return False
        if self.tags and not set(self.tags) <= set(registry.tags(revision)):
            return False
        if self.metrics:
            stated = registry.metrics(revision)
            return all(rule.failure(stated, {}) is None for rule in self.metrics)
        return True


@dataclass(frozen=True)
class Row:
    """A name, its newest revision, and where its aliases point; `error` in place of what cannot be read."""

    name: str
    latest: Revision | None
    aliases: Mapping[str, AliasEntry]
    error: str | None = None


@dataclass(frozen=True)
class Page:
    """Rows in order of name. `following` is the `after` of the next page, None on the last."""

    rows: list[Row]
    following: str | None


def find(registry: Registry, wanted: Filter | None = None, *, limit: int = 100, after: str = "") -> Page:
    """Names after `after` whose newest revision fits, at most `limit`. Raises InvalidError for a bad `after`.

    A name whose newest revision cannot be read is in every page that is not filtered, with its error.
    """
    if after:
        check_name(after, "page token")
    wanted = None if wanted == Filter() else wanted
    names = [name for name in registry.names() if name > after]
    rows: list[Row] = []
    with _collector_paused(), ThreadPoolExecutor(_AT_ONCE) as pool:
        for begin in range(0, len(names), _BATCH):
            batch = names[begin : begin + _BATCH]
            # Requests to an object store wait for each other no longer than they must; a folder is read faster by one.
            found = (pool.map if registry.remote else map)(lambda name: _row(registry, name, wanted), batch)
            for row in found:
                if row is None:
                    continue
                if len(rows) == limit:
                    return Page(rows, rows[-1].name)
                rows.append(row)
    return Page(rows, None)


def _row(registry: Registry, name: str, wanted: Filter | None) -> Row | None:
    """The name's row, None if its newest revision does not fit."""
    try:
        latest = registry.newest(name)
        if wanted is None or wanted.matches(registry, latest):
            return Row(name, latest, registry.aliases(name))
        return None
    except LoradeckError as error:
        return Row(name, None, {}, error.message) if wanted is None else None


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Many small objects are made and none in a cycle: the collector would look at them all again and again."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@dataclass(frozen=True)
class Lineage:
    """Where a revision comes from and where it went."""

    data: Any
    """The training data as its provenance states it."""
    run: dict[str, Any]
    """What of the run is known: recipe, seed, packages, hardware, or where it was imported from."""
    parents: list[str]
    """Revisions and bases that it was made from."""
    moves: list[AliasEntry]
    """Alias moves that pointed to it, oldest first."""
    attachments: list[Attachment]


def lineage(registry: Registry, revision: Revision) -> Lineage:
    """Data, run, revision, alias moves, in that order of time."""
    provenance = revision.manifest.provenance
    moves = [
        entry
        for alias in registry.aliases(revision.name)
        for entry in registry.history(revision.name, alias)
        if any(target.revision == revision.number for target in entry.targets)
    ]
    parents = [] if revision.manifest.kind == "base" else [revision.manifest.base.reference]
    parents += [str(provenance[key]) for key in ("parent", "extracted_from", "merged_from") if key in provenance]
    return Lineage(
        data=provenance.get("data"),
        run={key: provenance[key] for key in _RUN if key in provenance},
        parents=parents,
        moves=sorted(moves, key=lambda entry: entry.when),
        attachments=[entry for kind in KINDS for entry in registry.attachments(revision, kind)],
    )
