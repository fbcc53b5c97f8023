"""Publishing: files checked for servability, the manifest, and the push."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loradeck_registry.errors import NotFoundError, PreconditionError
from loradeck_registry.files import describe, folder_files
from loradeck_registry.manifest import Lora, Manifest
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.servability.adapter import check_adapter, read_shapes
from loradeck_tasks.probe import Probe
from loradeck_train.prepare import Prepared
from loradeck_train.recipe.settings import Recipe

MANIFEST = "manifest.json"


def make_manifest(prepared: Prepared, folder: Path, probe: Probe, record: dict[str, Any]) -> Manifest:
    """The manifest of the files in `folder`. An adapter passes every servability check first.

    Raises PreconditionError with the reason why it could not be served.
    """
    recipe, identity = prepared.recipe, prepared.base.identity
    lora: Lora | None = None
    if recipe.publishes == "adapter":
        facts = check_adapter(folder, prepared.task, read_shapes(prepared.base.folder, identity))
        lora = Lora.model_validate(
            {"rank": facts.rank, "alpha": facts.rank, "target_modules": facts.target_modules, "dtype": facts.dtype}
        )
    return Manifest(
        kind=recipe.publishes,
        base=identity,
        lora=lora,
        files=describe(folder_files(folder)),
        task=prepared.task.model_dump(mode="json", exclude_none=True),
        provenance=record,
        probe=probe.model_dump(mode="json"),
        licence=recipe.publish.licence,
        author=recipe.publish.author,
        create_time=datetime.now(UTC),
    )


def check_publishable(registry: Registry, recipe: Recipe) -> None:
    """Find out before hours of training whether the recipe's name takes this kind of revision.

    Raises PreconditionError (KIND_CHANGED) if it holds revisions of another kind, and what the registry raises where
    it cannot be written.
    """
    name, kind = recipe.publish.name, recipe.publishes
    if name is None:
        return
    # The smallest thing that can be written and taken back.
    registry.hold(()).release()
    try:
        there = registry.resolve(f"{name}@latest").manifest.kind
    except NotFoundError:
        return
    if there != kind:
        raise PreconditionError(
            f"{name} holds revisions of kind {there} and this recipe makes one of kind {kind}: "
            "publish under another name",
            reason="KIND_CHANGED",
            field="publish.name",
        )


def push(registry: Registry, prepared: Prepared, manifest: Manifest, folder: Path) -> Revision:
    """Push under the recipe's name, and move its alias. Raises what `Registry.push` raises."""
    settings = prepared.recipe.publish
    assert settings.name is not None, "asked for only with a name"
    return registry.push(
        settings.name,
        manifest,
        folder_files(folder),
        alias=settings.alias,
        author=settings.author,
        reason=settings.reason,
        base_folder=prepared.base.folder,
    )
