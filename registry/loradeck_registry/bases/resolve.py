"""Bases: finding one by reference, and bringing one into the registry."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import loradeck_pocket
from loradeck_registry.bases.identity import TOKENIZER_FILES, identify_base
from loradeck_registry.bases.reserve import reserve_rows
from loradeck_registry.cache import scratch_folder
from loradeck_registry.errors import InvalidError, LoradeckError, NotFoundError, PreconditionError, UnavailableError
from loradeck_registry.files import describe, folder_files
from loradeck_registry.manifest import BaseIdentity, Manifest
from loradeck_registry.reference import POCKET, BaseReference, check_name
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.stores.store import Transfer

__all__ = ["ResolvedBase", "add_base", "identify_base", "resolve_base"]

_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    *TOKENIZER_FILES,
)
_MODEL_PATTERNS = ("*.safetensors", "LICENSE*", "NOTICE*")
"""What is taken of a model: these files and those of these patterns."""


@dataclass(frozen=True)
class ResolvedBase:
    """A base on local disk. `revision` and `manifest` are set if it comes from the registry."""

    reference: str
    """How it was named, without any local path."""
    folder: Path
    identity: BaseIdentity
    revision: Revision | None = None
    linked: bool = False
    """Whether its files may be links, as in the hub's cache."""

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of a base or full checkpoint from the registry: its task travels with it."""
        return self.revision.manifest if self.revision else None


def resolve_base(text: str, registry: Registry | None) -> ResolvedBase:
    """Bring the base named by `text` to local disk: `name[@…]`, `hub:org/name[@revision]`, `org/name`, `dir:folder`, or
    `pocket:base`.

    A full checkpoint from the registry is a base too. Raises NotFoundError, InvalidError, PreconditionError (an adapter
    is no base; huggingface_hub missing), UnavailableError (hub not reachable), DamagedError.
    """
    reference = BaseReference.parse(text)
    if reference.pocket:
        return ResolvedBase(POCKET, loradeck_pocket.BASE, identify_base(loradeck_pocket.BASE, POCKET))
    if reference.folder is not None:
        folder = reference.folder.expanduser().absolute()
        if not folder.is_dir():
            raise NotFoundError(f"no base folder {folder}", reason="BASE_NOT_FOUND", field="base")
        name = f"dir:{folder.name}"
        return ResolvedBase(name, folder, identify_base(folder, name))
    if reference.hub is not None:
        folder = hub_snapshot(reference.hub, reference.hub_revision)
        return ResolvedBase(str(reference), folder, identify_base(folder, str(reference)), linked=True)
    if registry is None:
        raise InvalidError(
            f"the base {text!r} is a name in a registry, but no registry is given: add --registry, or name a base as "
            "hub:org/name or dir:folder",
            field="base",
        )
    assert reference.registry is not None
    revision = registry.resolve(reference.registry)
    if revision.manifest.kind == "adapter":
        raise PreconditionError(
            f"{revision} is an adapter of {revision.manifest.base.reference}, not a base",
            reason="NOT_A_BASE",
            field="base",
        )
    folder = registry.local(revision)
    return ResolvedBase(str(revision), folder, identify_base(folder, str(revision)), revision)


def add_base(
    registry: Registry,
    name: str,
    source: str,
    *,
    reserve_tokens: int = 0,
    alias: str | None = None,
    author: str | None = None,
    licence: str | None = None,
    progress: Transfer | None = None,
) -> Revision:
    """Store the base that `source` names (as for `resolve_base`) as a revision of kind base.

    Takes configuration, safetensors weights, tokenizer and licence files, and nothing else. With `reserve_tokens` the
    stored copy has at least that many rows behind the tokenizer's last token, zero where they are new; its
    compatibility is that of the source. Raises what `resolve_base`, `reserve_rows` and `Registry.push` raise.
    """
    check_name(name)
    base = resolve_base(source, registry)
    files = model_files(base.folder, follow_links=base.linked)
    if reserve_tokens <= 0:
        return _push_base(registry, name, base, files, alias=alias, author=author, licence=licence, progress=progress)
    with scratch_folder() as scratch:
        files = reserve_rows(files, base.folder, reserve_tokens, scratch / "changed")
        whole = scratch / "base"
        whole.mkdir()
        for path, file in files.items():
            (whole / path).symlink_to(file)
        identity = identify_base(whole, base.identity.reference)
        if identity.compatibility != base.identity.compatibility:
            raise LoradeckError(f"the copy of {base.reference} with reserved rows came out different from it")
        grown = replace(base, identity=identity)
        return _push_base(registry, name, grown, files, alias=alias, author=author, licence=licence, progress=progress)


def _push_base(
    registry: Registry,
    name: str,
    base: ResolvedBase,
    files: dict[str, Path],
    *,
    alias: str | None,
    author: str | None,
    licence: str | None,
    progress: Transfer | None,
) -> Revision:
    manifest = Manifest(
        kind="base",
        base=base.identity,
        files=describe(files),
        provenance={"source": base.reference},
        licence=licence,
        author=author,
        create_time=datetime.now(UTC),
    )
    if progress is not None:
        progress.expect(manifest.size)
    return registry.push(
        name, manifest, files, alias=alias, author=author, reason=f"add-base {base.reference}", progress=progress
    )


def model_files(folder: Path, *, follow_links: bool = False) -> dict[str, Path]:
    """The files of a model folder that belong into a revision. The hub's cache is made of links: `follow_links`."""
    if follow_links:
        found = {path.name: path.resolve() for path in sorted(folder.iterdir()) if path.is_file()}
    else:
        found = {path: source for path, source in folder_files(folder).items() if "/" not in path}
    return {path: file for path, file in found.items() if path in _MODEL_FILES or _fits(path)}


def _fits(path: str) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in _MODEL_PATTERNS)


def hub_snapshot(hub: str, revision: str | None, more: Sequence[str] = ()) -> Path:
    """The local folder of a hub repository's model files, and of files of the patterns `more`; it holds links.

    Raises PreconditionError (huggingface_hub missing), NotFoundError, UnavailableError (offline and not cached).
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise PreconditionError(
            "a base from the hub needs the package huggingface_hub: pip install 'loradeck[train]', or use dir:folder",
            reason="HUB_PACKAGE_MISSING",
        ) from error
    try:
        folder = snapshot_download(hub, revision=revision, allow_patterns=[*_MODEL_FILES, *_MODEL_PATTERNS, *more])
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        raise NotFoundError(
            f"the hub has no {hub}{f' at {revision}' if revision else ''}, or it needs a login: {_first_line(error)}",
            reason="BASE_NOT_FOUND",
            field="base",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UnavailableError(
            f"cannot reach the hub for {hub}, and it is not in the local cache: "
            "go online, or give a folder as dir:PATH",
            reason="HUB_UNREACHABLE",
        ) from error
    return Path(folder)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
