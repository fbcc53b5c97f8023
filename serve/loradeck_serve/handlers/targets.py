"""From a request's reference to what answers it: an adapter revision, the base, or a full checkpoint, and its task."""

from dataclasses import dataclass

from loradeck_registry.errors import InvalidError, LoradeckError, NotFoundError, PreconditionError
from loradeck_registry.reference import Reference
from loradeck_registry.registry import Revision
from loradeck_serve.catalog.catalog import Catalog
from loradeck_serve.config import BaseTasks
from loradeck_serve.domain import Call
from loradeck_serve.handlers.fields import check_labels
from loradeck_serve.served_base import ServedBase
from loradeck_tasks.defaults import default_task
from loradeck_tasks.stored import stored_task
from loradeck_tasks.task import Task, TaskKind

_METHODS = {
    "classification": "Classify",
    "short_qa": "AnswerShort",
    "long_qa": "AnswerLong",
    "generate": "Generate",
}


@dataclass(frozen=True)
class Target:
    """Who answers a request. `adapter` is None for the base and for a full checkpoint; `task` is never None."""

    name: str
    revision: int
    digest: str
    requested: str
    task: Task
    adapter: Revision | None = None
    own_task: bool = True
    """Whether the task travelled with the revision; False for a default task on the base."""


class Targets:
    """Finds targets and checks that they are made for what is asked of them."""

    def __init__(self, catalog: Catalog, base: ServedBase, base_tasks: BaseTasks) -> None:
        self._catalog = catalog
        self._base = base
        self._base_tasks = base_tasks
        self._generate = default_task("generate")
        self._tasks: dict[str, Task] = {}

    async def find(self, call: Call, reference: str, kind: TaskKind, labels: tuple[str, ...] = ()) -> Target:
        """What `reference` (empty: the base) means for a request of this kind. Sets `call.adapter`.

        `labels` are those of the request: a default classification has no others. Raises NotFoundError, InvalidError,
        DeniedError, and PreconditionError (WRONG_TASK, BASE_MISMATCH, NOT_AN_ADAPTER, OTHER_REVISION).
        """
        call.requested = reference
        if not reference:
            call.access.check_adapter(self._base.name)
            call.adapter = ""
            return self._of_base("", kind, labels)
        try:
            parsed = Reference.parse(reference)
        except LoradeckError as error:
            raise InvalidError(error.message, reason=error.reason, field="adapter") from None
        # Before anything is looked up: who may not use a name does not learn whether it exists.
        call.access.check_adapter(parsed.name)
        if self._base.is_meant_by(parsed):
            call.adapter = ""
            if self._base.task is not None and self._base.task.kind != kind:
                raise self._wrong_task(self._base.name, self._base.task.kind, kind)
            return self._of_base(reference, kind, labels)
        try:
            revision = await self._catalog.resolve(reference, call.identity)
        except NotFoundError as error:
            raise call.access.hide_others(error, parsed.name) from None
        call.adapter = revision.name
        self._base.check_compatible(revision)
        task = self.task(revision)
        if task.kind != kind:
            raise self._wrong_task(str(revision), task.kind, kind)
        return Target(revision.name, revision.number, revision.digest, reference, task, revision)

    def task(self, revision: Revision) -> Task:
        """The task of an adapter revision, parsed once. Raises PreconditionError (NO_TASK, BAD_TASK)."""
        task = self._tasks.get(revision.digest)
        if task is None:
            if revision.manifest.task is None:
                raise PreconditionError(f"{revision} carries no task and cannot be served", reason="NO_TASK")
            task = stored_task(revision.manifest.task, str(revision))
            if len(self._tasks) >= 4096:
                self._tasks.clear()
            self._tasks[revision.digest] = task
        return task

    def _of_base(self, requested: str, kind: TaskKind, labels: tuple[str, ...]) -> Target:
        base = self._base
        task = base.task_of(kind)
        own = task is not None
        if task is None:
            task = self._default(kind, labels)
        return Target(base.name, base.revision, base.digest, requested, task, own_task=own)

    def _default(self, kind: TaskKind, labels: tuple[str, ...]) -> Task:
        if kind == "generate":
            return self._generate
        if kind == "short_qa":
            return self._base_tasks.short_qa
        if kind == "long_qa":
            return self._base_tasks.long_qa
        if len(labels) < 2:
            raise InvalidError(
                "a base has no labels of its own: give two or more in `labels`, or name an adapter",
                reason="LABELS_REQUIRED",
                field="labels",
            )
        check_labels(labels)
        fields = self._base_tasks.classification.model_dump() | {"labels": [{"name": label} for label in labels]}
        return Task.model_validate(fields)

    @staticmethod
    def _wrong_task(what: str, has: TaskKind, asked: TaskKind) -> PreconditionError:
        return PreconditionError(
            f"{what} is made for {has} ({_METHODS[has]}), not for {asked} ({_METHODS[asked]})",
            reason="WRONG_TASK",
            field="adapter",
            metadata={"task": has, "requested_task": asked},
        )
