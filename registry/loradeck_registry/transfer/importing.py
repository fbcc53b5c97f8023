"""Import: an adapter or full checkpoint from a folder, the hub or a bundle, converted and checked on its way in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradeck_registry.bases.resolve import ResolvedBase, hub_snapshot
from loradeck_registry.bases.shapes import read_shapes
from loradeck_registry.cache import scratch_folder
from loradeck_registry.errors import InvalidError, NotFoundError
from loradeck_registry.publish import push_folder
from loradeck_registry.reference import BaseReference, check_name
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.servability.adapter import CONFIG, NEW_TOKENS, AdapterFacts, check_adapter
from loradeck_registry.transfer.conversion import convert_adapter

_ADAPTER_FILES = (CONFIG, "adapter_model.safetensors")


@dataclass(frozen=True)
class Imported:
    """The new revision, None after a dry run, and what the conversion changed or left out."""

    revision: Revision | None
    findings: tuple[str, ...]
    facts: AdapterFacts | None = None
    """Of an adapter."""


def import_folder(
    registry: Registry,
    name: str,
    source: str,
    base: ResolvedBase,
    *,
    task: Mapping[str, Any] | None = None,
    task_for_tokens: Callable[[Mapping[int, str]], Mapping[str, Any]] | None = None,
    dtype: str | None = None,
    initial: Path | None = None,
    dry_run: bool = False,
    alias: str | None = None,
    author: str | None = None,
    licence: str | None = None,
) -> Imported:
    """Bring in the PEFT adapter or full checkpoint at `source` (a folder, `dir:…`, `hub:org/name[@revision]`).

    An adapter is converted (`convert_adapter`) and checked; the record of what was changed goes into its provenance.
    `task_for_tokens` makes the task of an adapter that brings new tokens when no `task` is given. Raises what they
    and `push_folder` raise.
    """
    check_name(name)
    folder, origin, linked = _locate(source)
    if not (folder / CONFIG).exists():
        if dry_run:
            raise InvalidError(f"{origin} is no adapter: a dry run is for adapters", field="source")
        provenance: dict[str, Any] = {"import": {"source": origin}}
        revision = push_folder(
            registry, name, folder, base, task=task, provenance=provenance, alias=alias, author=author,
            reason=f"import {origin}", licence=licence, follow_links=linked,
        )  # fmt: skip
        return Imported(revision, ())
    if not linked and any((folder / file).is_symlink() for file in _ADAPTER_FILES):
        raise InvalidError(
            f"{origin} holds a symbolic link: only plain files are taken", reason="SYMLINK", field="source"
        )
    if (folder / NEW_TOKENS).exists():
        raise InvalidError(
            f"{origin} is in the published format already: `loradeck registry push` takes it as it is", field="source"
        )
    shapes = read_shapes(base.folder)
    with scratch_folder() as scratch:
        published = scratch / "adapter"
        result = convert_adapter(folder, base.folder, shapes, published, dtype=dtype, initial=initial)
        if task is None and result.added_tokens and task_for_tokens is not None:
            task = task_for_tokens(result.added_tokens)
        facts = check_adapter(published, task or {}, shapes)
        if dry_run:
            return Imported(None, tuple(result.findings), facts)
        provenance = {"import": {"source": origin, "findings": result.findings}}
        revision = push_folder(
            registry, name, published, base, task=task, provenance=provenance, alias=alias, author=author,
            reason=f"import {origin}", licence=licence,
        )  # fmt: skip
        return Imported(revision, tuple(result.findings), facts)


def _locate(source: str) -> tuple[Path, str, bool]:
    """Local folder, how to name it without a local path, and whether it holds the hub's links."""
    if Path(source).is_dir():
        source = f"dir:{source}"
    reference = BaseReference.parse(source) if source.startswith(("dir:", "hub:")) or "/" in source else None
    if reference is not None and reference.hub is not None:
        return hub_snapshot(reference.hub, reference.hub_revision, _ADAPTER_FILES), str(reference), True
    if reference is None or reference.folder is None or not reference.folder.is_dir():
        raise NotFoundError(f"no folder {source.removeprefix('dir:')} to import from", field="source")
    folder = reference.folder.expanduser().absolute()
    return folder, f"dir:{folder.name}", False
