"""A revision with its base, brought to local disk and checked to belong together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loradeck_registry.bases.resolve import ResolvedBase, resolve_base
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry, Revision
from loradeck_tasks.rendering import tokenizer_for
from loradeck_tasks.task import Task


@dataclass(frozen=True)
class Source:
    """A revision's files, its base, its task, and prompts to compare by."""

    revision: Revision
    folder: Path
    base: ResolvedBase
    task: Task
    tokenizer: Any
    prompts: list[list[int]]


def open_source(registry: Registry, reference: str, base: str | None, kind: Literal["adapter", "full"]) -> Source:
    """The revision `reference`, of that kind, with its base (`base`: named otherwise than at training time).

    Raises PreconditionError (NOT_AN_ADAPTER, NOT_A_CHECKPOINT, NO_TASK, BASE_MISMATCH), and what finding both raises.
    """
    revision = registry.resolve(reference)
    manifest = revision.manifest
    if manifest.kind != kind:
        what = "an adapter" if kind == "adapter" else "a full checkpoint"
        reason = "NOT_AN_ADAPTER" if kind == "adapter" else "NOT_A_CHECKPOINT"
        raise PreconditionError(f"{revision} is of kind {manifest.kind}, {what} is needed", reason=reason)
    if manifest.task is None or manifest.probe is None:
        raise PreconditionError(f"{revision} carries no task and probe to compare by", reason="NO_TASK")
    found = resolve_base(base or manifest.base.reference, registry)
    if found.identity.compatibility != manifest.base.compatibility:
        raise PreconditionError(
            f"{revision} was trained on {manifest.base.reference}, and {found.reference} differs from it: name the "
            "right base with --base",
            reason="BASE_MISMATCH",
            field="base",
        )
    task = Task.model_validate(manifest.task)
    prompts = [list(prompt["token_ids"]) for prompt in manifest.probe["prompts"]]
    return Source(revision, registry.local(revision), found, task, tokenizer_for(task, found.folder), prompts)
