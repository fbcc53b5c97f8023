"""A revision or a base as a transformers model, for what needs the probability of given tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradeck_registry.bases.resolve import resolve_base
from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_registry.registry import Registry
from loradeck_registry.revision import Revision
from loradeck_tasks.defaults import default_task
from loradeck_tasks.task import Task

NEW_TOKENS = "new_tokens.safetensors"


@dataclass(frozen=True)
class Loaded:
    """A model ready to compute. `allowed` are the token ids that it may emit: served, the others are masked."""

    model: Any
    tokenizer: Any
    task: Task
    allowed: Any
    revision: Revision | None
    name: str


def load(
    adapter: str | None, base: str | None, kind: str, labels: list[str], registry: Registry | None, dtype: str
) -> Loaded:
    """The adapter or full checkpoint `adapter` with its own task, else the base `base` with the default task of `kind`.

    Raises LoradeckError for what cannot be found, loaded, or is of another kind of task.
    """
    import torch

    from loradeck_tasks.rendering import tokenizer_for

    revision = _revision(adapter, registry)
    manifest = revision.manifest if revision else None
    if manifest is not None and manifest.kind == "full":
        assert revision is not None
        base = str(revision)
    elif base is None:
        if manifest is None:
            raise InvalidError("say which model: --adapter REF or --base REF", field="base")
        base = manifest.base.reference
    resolved = resolve_base(base, registry)
    of_adapter = manifest is not None and manifest.kind == "adapter"
    if manifest is not None and of_adapter and manifest.base.compatibility != resolved.identity.compatibility:
        raise PreconditionError(
            f"{revision} belongs to {manifest.base.reference}, not to {base}", reason="OTHER_BASE", field="base"
        )
    task = _task(manifest.task if manifest else None, kind, labels, adapter or base)
    model = _causal(resolved.folder, getattr(torch, dtype))
    if revision is not None and of_adapter:
        assert registry is not None
        model = _with_adapter(model, registry.local(revision))
    allowed = [*range(resolved.identity.vocabulary), *(token.id for token in task.added_tokens)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Loaded(
        model.to(device).eval(),
        tokenizer_for(task, resolved.folder),
        task,
        torch.tensor(sorted(set(allowed)), device=device),
        revision or resolved.revision,
        str(revision) if revision else resolved.reference,
    )


def _revision(reference: str | None, registry: Registry | None) -> Revision | None:
    if reference is None:
        return None
    if registry is None:
        raise InvalidError(f"{reference!r} is a name in a registry: add --registry", field="registry")
    revision = registry.resolve(reference)
    if revision.manifest.kind == "base":
        raise InvalidError(f"{revision} is a base: name it with --base", field="adapter")
    return revision


def _task(stored: Any, kind: str, labels: list[str], name: str) -> Task:
    if stored is None:
        changes = {"labels": [{"name": label} for label in labels]} if kind == "classification" else {}
        return default_task(kind, **changes)  # type: ignore[arg-type]
    task = Task.model_validate(stored)
    if task.kind != kind:
        raise InvalidError(f"{name} has a task of kind {task.kind}, not {kind}", reason="OTHER_TASK", field="task")
    return task


def _causal(folder: Path, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        line = " ".join(str(error).split())[:200]
        raise PreconditionError(f"the base cannot be loaded: {line}", reason="BASE_NOT_LOADABLE") from error


def _with_adapter(model: Any, folder: Path) -> Any:
    """`model`, changed in place, with the new tokens' rows and the LoRA of a published adapter."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    if (folder / NEW_TOKENS).is_file():
        new = load_file(str(folder / NEW_TOKENS))
        matrices = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        with torch.no_grad():
            for matrix, rows in zip(matrices, (new["input_rows"], new["output_rows"]), strict=True):
                matrix[new["ids"]] = rows.to(matrix)
    return PeftModel.from_pretrained(model, str(folder))
