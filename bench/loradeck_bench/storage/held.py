"""What revisions cost on disk: bytes of base, adapters and full checkpoints, measured from their manifests."""

from dataclasses import asdict, dataclass
from typing import Any

from loradeck_registry.registry import Registry, Revision


@dataclass(frozen=True)
class StorageRow:
    """One revision. `stored` is what the registry keeps of it, equal files and deltas taken into account once each.

    `ratio_to_full` is its bytes over those of the newest full checkpoint of the same base, `per_full` how many of it
    fit into that checkpoint's bytes; both are None while the registry holds no such checkpoint.
    """

    artifact: str
    kind: str
    bytes: int
    stored: int
    ratio_to_full: float | None
    per_full: float | None
    rank: int | None


def storage_rows(registry: Registry) -> list[StorageRow]:
    """A row for every revision: bases, then full checkpoints, then adapters, each by name and number."""
    revisions = [revision for name in registry.names() for revision in registry.revisions(name)]
    full: dict[str, int] = {}
    for revision in sorted(revisions, key=lambda r: r.manifest.create_time):
        if revision.manifest.kind == "full":
            full[revision.manifest.base.compatibility] = revision.manifest.size
    order = {"base": 0, "full": 1, "adapter": 2}
    revisions.sort(key=lambda r: (order[r.manifest.kind], r.name, r.number))
    return [_row(registry, revision, full.get(revision.manifest.base.compatibility)) for revision in revisions]


def storage_report(registry: Registry) -> dict[str, Any]:
    """The form in report files: `rows`, the sum of their bytes, and the bytes really kept: each file once, and of one
    that is stored as a difference the difference."""
    rows = storage_rows(registry)
    kept: dict[str, int] = {}
    for name in registry.names():
        for revision in registry.revisions(name):
            kept |= registry.stored_files(revision)
    return {
        "rows": [asdict(row) for row in rows],
        "bytes": sum(row.bytes for row in rows),
        "bytes_stored_once": sum(kept.values()),
    }


def _row(registry: Registry, revision: Revision, full: int | None) -> StorageRow:
    size = revision.manifest.size
    lora = revision.manifest.lora
    return StorageRow(
        artifact=str(revision),
        kind=revision.manifest.kind,
        bytes=size,
        stored=sum(registry.stored_files(revision).values()),
        ratio_to_full=size / full if full else None,
        per_full=full / size if full and size else None,
        rank=lora.rank if lora else None,
    )
