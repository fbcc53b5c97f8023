"""The base that this server serves: a plain base, or a full checkpoint with a task of its own."""

from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.errors import PreconditionError
from loradeck_registry.manifest import BaseIdentity
from loradeck_registry.reference import Reference
from loradeck_registry.registry import Revision
from loradeck_tasks.task import Task, TaskKind


@dataclass(frozen=True)
class ServedBase:
    """`name` is its name in replies; `revision` is 0 and `digest` empty when it comes from a folder or the hub."""

    name: str
    folder: Path
    identity: BaseIdentity
    revision: int = 0
    digest: str = ""
    task: Task | None = None
    """The task of a full checkpoint."""

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    def is_meant_by(self, reference: Reference) -> bool:
        """Whether a request's reference names this base or full checkpoint, which must be of the registry for that.

        Raises PreconditionError (OTHER_REVISION) if it names another revision of it, which needs a server of its own.
        """
        if reference.name != self.name or not self.digest:
            # A base from a folder has no name in the registry, and hides no adapter there.
            return False
        other = (reference.revision is not None and reference.revision != self.revision) or (
            reference.digest is not None and reference.digest != self.digest
        )
        if other:
            raise PreconditionError(
                f"this server's base is {self}; {reference} needs a server of its own",
                reason="OTHER_REVISION",
                metadata={"served_revision": str(self.revision), "served_digest": self.digest},
            )
        return True

    def check_compatible(self, revision: Revision) -> None:
        """Raise PreconditionError (BASE_MISMATCH, NOT_AN_ADAPTER) unless `revision` is an adapter of this base."""
        manifest = revision.manifest
        if manifest.kind != "adapter":
            raise PreconditionError(
                f"{revision} is a {manifest.kind} model, not an adapter: serve it with "
                f"`loradeck serve --base {revision}`",
                reason="NOT_AN_ADAPTER",
                field="adapter",
            )
        if manifest.base.compatibility != self.identity.compatibility:
            raise PreconditionError(
                f"{revision} was trained on {manifest.base.reference} (compatibility "
                f"{manifest.base.compatibility[:19]}), this server serves {self.identity.reference} (compatibility "
                f"{self.identity.compatibility[:19]}): start one on that base",
                reason="BASE_MISMATCH",
                field="adapter",
                metadata={"adapter_base": manifest.base.compatibility, "served_base": self.identity.compatibility},
            )

    def task_of(self, kind: TaskKind) -> Task | None:
        """The full checkpoint's own task if it is of this kind."""
        return self.task if self.task is not None and self.task.kind == kind else None
