"""What a full checkpoint is stored as a difference to: files of its base, or of an earlier checkpoint of that base."""

from pathlib import Path
from typing import Protocol

from loradeck_registry import layout
from loradeck_registry.contents import Sources
from loradeck_registry.delta.encoding import Source
from loradeck_registry.delta.record import Stored
from loradeck_registry.errors import LoradeckError
from loradeck_registry.hashing import sha256_of
from loradeck_registry.manifest import File, Manifest
from loradeck_registry.reference import Reference
from loradeck_registry.revision import Revision
from loradeck_registry.stores.store import Store
from loradeck_registry.weights import weight_files


class Revisions(Protocol):
    """What is asked of a registry."""

    def resolve(self, reference: str | Reference) -> Revision: ...

    def revisions(self, name: str) -> list[Revision]: ...


def choose_sources(
    registry: Revisions, store: Store, copies: Sources, name: str, manifest: Manifest, base_folder: Path | None
) -> list[Source]:
    """Local copies of files that the store keeps whole and that resemble the checkpoint's; none if there are none.

    In this order: the files of the base where its reference names a revision here; the files in `base_folder`, where
    the store has files of their digests; those of the oldest revision of `name` that has the same base.
    """
    return (
        _of_revision(store, copies, _base(registry, manifest))
        or _of_folder(store, base_folder)
        or _of_revision(store, copies, _earlier(registry, name, manifest))
    )


def _base(registry: Revisions, manifest: Manifest) -> Revision | None:
    try:
        found = registry.resolve(Reference.parse(manifest.base.reference))
    except LoradeckError:
        return None
    return found if found.manifest.base.compatibility == manifest.base.compatibility else None


def _earlier(registry: Revisions, name: str, manifest: Manifest) -> Revision | None:
    try:
        found = registry.revisions(name)
    except LoradeckError:
        return None
    same = [revision for revision in found if revision.manifest.base.compatibility == manifest.base.compatibility]
    return same[0] if same else None


def _of_revision(store: Store, copies: Sources, revision: Revision | None) -> list[Source]:
    if revision is None:
        return []
    found = []
    for file in revision.manifest.files:
        if not file.path.endswith(".safetensors") or store.size(layout.blob(file.sha256)) != file.size:
            continue
        try:
            path = copies(Stored(sha256=file.sha256, size=file.size))
        except LoradeckError:
            continue
        # A difference to a damaged source would be lost with the source's repair.
        if sha256_of(path) == file.sha256:
            found.append(Source(file, path))
    return found


def _of_folder(store: Store, folder: Path | None) -> list[Source]:
    found = []
    for path in weight_files(folder) if folder is not None else ():
        file = File(path=path.name, sha256=sha256_of(path), size=path.stat().st_size)
        if store.size(layout.blob(file.sha256)) == file.size:
            found.append(Source(file, path))
    return found
