"""A converted revision: proven against what it was made from, and pushed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from loradeck_registry.files import describe, folder_files
from loradeck_registry.manifest import Lora, Manifest
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.servability.adapter import check_adapter, read_shapes
from loradeck_train.convert.sources import Source
from loradeck_train.publish.proof import ReloadCheck, prove
from loradeck_train.publish.provenance import packages

Kind = Literal["adapter", "full"]


def proven_manifest(
    source: Source,
    folder: Path,
    kind: Kind,
    expected: list[Tensor],
    dtype: str,
    record: dict[str, Any],
    *,
    lossy: bool,
) -> tuple[Manifest, ReloadCheck]:
    """The manifest of the files in `folder`, reloaded and compared with the log-probabilities `expected`.

    It names the source's base, its task, and where it came from. Raises PreconditionError (RELOAD_DIFFERS, or why an
    adapter could not be served).
    """
    probe, check = prove(
        source.prompts,
        expected,
        source.task,
        source.tokenizer,
        source.base.identity.vocabulary,
        source.base.folder,
        folder,
        adapter=kind == "adapter",
        dtype=dtype,
        lossy=lossy,
    )
    lora = None
    if kind == "adapter":
        facts = check_adapter(folder, source.task, read_shapes(source.base.folder, source.base.identity))
        lora = Lora.model_validate(
            {"rank": facts.rank, "alpha": facts.rank, "target_modules": facts.target_modules, "dtype": facts.dtype}
        )
    manifest = Manifest(
        kind=kind,
        base=source.base.identity,
        lora=lora,
        files=describe(folder_files(folder)),
        task=source.task.model_dump(mode="json", exclude_none=True),
        provenance={
            **record,
            "source": str(source.revision),
            "source_digest": source.revision.digest,
            "reload_check": vars(check),
            "packages": packages(),
        },
        probe=probe.model_dump(mode="json"),
        licence=source.revision.manifest.licence,
        create_time=datetime.now(UTC),
    )
    return manifest, check


def push_converted(
    registry: Registry, manifest: Manifest, folder: Path, name: str, alias: str | None, reason: str
) -> Revision:
    """Push under `name`, and move `alias` to it."""
    return registry.push(name, manifest, folder_files(folder), alias=alias, reason=reason)
