"""Publishing a local folder: what kind of revision it is, whether it may be served, and its manifest."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loradeck_registry.bases.identity import read_config
from loradeck_registry.bases.resolve import ResolvedBase, model_files
from loradeck_registry.errors import InvalidError, LoradeckError, NotFoundError, PreconditionError
from loradeck_registry.files import describe, folder_files
from loradeck_registry.hashing import sha256_of
from loradeck_registry.manifest import Lora, Manifest
from loradeck_registry.registry import Registry, Revision, parse_manifest
from loradeck_registry.servability.adapter import CONFIG, MODEL, NEW_TOKENS, check_adapter, read_shapes
from loradeck_registry.stores.store import Transfer
from loradeck_registry.weights import open_all


def push_folder(
    registry: Registry,
    name: str,
    folder: Path,
    base: ResolvedBase,
    *,
    task: Mapping[str, Any] | None = None,
    probe: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    alias: str | None = None,
    author: str | None = None,
    reason: str = "",
    licence: str | None = None,
    follow_links: bool = False,
    progress: Transfer | None = None,
) -> Revision:
    """Push a folder: with an adapter_config.json an adapter in published format, else a full checkpoint.

    An adapter is checked as a server would (PreconditionError with `check_adapter`'s reasons). A full checkpoint must
    have the base's weights by name and shape, the embeddings' rows aside (PreconditionError BASE_MISMATCH). `task`
    and `probe` are JSON of the models in `loradeck_tasks`. `follow_links` is for full checkpoints in
    the hub's cache. `progress` is told of bytes as `Registry.push` says. Raises what `Registry.push` raises.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no folder {folder} to push", field="folder")
    lora = None
    if (folder / CONFIG).exists():
        everything = folder_files(folder)
        facts = check_adapter(folder, task or {}, read_shapes(base.folder))
        lora = Lora(rank=facts.rank, alpha=facts.rank, target_modules=facts.target_modules, dtype=facts.dtype)  # type: ignore[arg-type]
        files = {path: source for path, source in everything.items() if path in (CONFIG, MODEL, NEW_TOKENS)}
    else:
        read_config(folder)
        files = model_files(folder, follow_links=follow_links)
        _check_full(folder, base)
    manifest = Manifest(
        kind="full" if lora is None else "adapter",
        base=base.identity,
        lora=lora,
        files=describe(files),
        task=None if task is None else dict(task),
        probe=None if probe is None else dict(probe),
        provenance=dict(provenance or {}),
        licence=licence,
        author=author,
        create_time=datetime.now(UTC),
    )
    if progress is not None:
        progress.expect(manifest.size)
    return registry.push(
        name, manifest, files, alias=alias, author=author, reason=reason, base_folder=base.folder, progress=progress
    )


def pulled_manifest(folder: Path) -> Manifest | None:
    """The manifest that `registry pull` left in a folder, None if there is none."""
    try:
        return parse_manifest((folder / "manifest.json").read_bytes(), folder.name)
    except (OSError, LoradeckError):
        return None


def is_unchanged(folder: Path, manifest: Manifest) -> bool:
    """Whether the files of a pulled folder are still those of its manifest."""
    files = {path: source for path, source in folder_files(folder).items() if path != "manifest.json"}
    same = {path: sha256_of(source) for path, source in files.items()}
    return same == {file.path: file.sha256 for file in manifest.files}


def read_json_file(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file the user named. Raises InvalidError saying `what` it should be."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidError(f"cannot read the {what} from {path}: {why}", field=what) from error
    if not isinstance(content, dict):
        raise InvalidError(f"{path} does not hold the {what}: a JSON object is needed", field=what)
    return content


def _check_full(folder: Path, base: ResolvedBase) -> None:
    mine, theirs = read_shapes(folder), read_shapes(base.folder)
    odd = sorted(set(mine.modules.items()) ^ set(theirs.modules.items()))
    if odd or mine.hidden != theirs.hidden:
        what = odd[0][0] if odd else "the hidden size"
        raise PreconditionError(
            f"{folder.name} is not a full checkpoint of {base.reference}: {what} differs",
            reason="BASE_MISMATCH",
            field="base",
        )
    for name, weights in open_all(folder).items():
        tensor = weights.tensors[name]
        if tensor.dtype in ("F32", "F16", "BF16", "F64") and not weights.finite(name):
            raise PreconditionError(f"tensor {name} of {folder.name} holds NaN or infinity", reason="NOT_FINITE")
