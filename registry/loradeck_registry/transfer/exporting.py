"""Export: a revision as a plain PEFT folder, which `PeftModel.from_pretrained` loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loradeck_registry.cache import scratch_folder
from loradeck_registry.errors import PreconditionError
from loradeck_registry.identity import EMBEDDING_SUFFIXES
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.servable import CONFIG, MODEL, NEW_TOKENS
from loradeck_registry.shapes import BaseShapes
from loradeck_registry.weights import Weights, write_weights


def check_exportable(revision: Revision) -> None:
    """Raise PreconditionError (NOT_AN_ADAPTER) unless there is something to convert."""
    if revision.manifest.kind != "adapter":
        raise PreconditionError(
            f"{revision} is of kind {revision.manifest.kind}: `registry pull` gives its files as they are",
            reason="NOT_AN_ADAPTER",
        )


def export_peft(registry: Registry, revision: Revision, base: BaseShapes, destination: Path) -> list[str]:
    """Write an adapter into the absent or empty folder `destination`; returns what its user should know.

    New tokens become PEFT's trainable tokens, which need a base whose embedding has their rows; `added_tokens.json`
    names them, for an import too. Raises
    PreconditionError (NOT_AN_ADAPTER, NOT_EMPTY, and NEW_TOKENS where a tied base is given different rows for its two
    sides, which PEFT cannot express).
    """
    check_exportable(revision)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise PreconditionError(f"{destination} exists and is not an empty folder", reason="NOT_EMPTY")
    source = registry.local(revision)
    config = json.loads((source / CONFIG).read_bytes())
    config["base_model_name_or_path"] = _base_name(revision)
    notes = []
    with scratch_folder() as scratch:
        part = scratch / "peft"
        part.mkdir()
        if (source / NEW_TOKENS).exists():
            ids = _merge_rows(source, part / MODEL, base)
            config["trainable_token_indices"] = dict.fromkeys(_row_modules(base), ids)
            notes.append(
                f"it adds tokens {ids[0]} to {ids[-1]}: load it on a base whose embedding has at least {max(ids) + 1} "
                "rows, with the task's added tokens in the tokenizer"
            )
        else:
            shutil.copyfile(source / MODEL, part / MODEL)
        (part / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        if revision.manifest.task is not None:
            names = {token["content"]: token["id"] for token in revision.manifest.task.get("added_tokens", ())}
            if names:
                (part / "added_tokens.json").write_text(json.dumps(names, indent=2, ensure_ascii=False) + "\n")
            (part / "task.json").write_text(json.dumps(revision.manifest.task, indent=2, ensure_ascii=False) + "\n")
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(part, destination, dirs_exist_ok=True)
        except OSError as error:
            raise PreconditionError(f"cannot write {destination}: {error.strerror}", reason="NOT_PERMITTED") from error
    return notes


def _base_name(revision: Revision) -> str | None:
    """What PEFT takes as the base's name: the hub's, or none."""
    reference = revision.manifest.base.reference
    return reference.removeprefix("hub:").partition("@")[0] if reference.startswith("hub:") else None


def _row_modules(base: BaseShapes) -> list[str]:
    return [EMBEDDING_SUFFIXES[0].removesuffix(".weight")] if base.tied else ["embed_tokens", "lm_head"]


def _merge_rows(source: Path, target: Path, base: BaseShapes) -> list[int]:
    """LoRA tensors and new rows in one file under PEFT's names; returns the token ids."""
    arrays: dict[str, NDArray[Any]] = {}
    rows = Weights(source / NEW_TOKENS)
    kinds = {rows.tensors["input_rows"].dtype}
    if (source / MODEL).exists():
        model = Weights(source / MODEL)
        arrays = {name: model.array(name) for name in model.tensors}
        kinds |= {tensor.dtype for tensor in model.tensors.values()}
    if len(kinds) != 1:
        raise PreconditionError("new tokens and LoRA are stored in different precisions", reason="DTYPE")
    inputs, outputs = rows.array("input_rows"), rows.array("output_rows")
    if base.tied and not np.array_equal(inputs, outputs):
        raise PreconditionError(
            "its new tokens have different rows for embedding and head, which PEFT cannot express on a tied base",
            reason="NEW_TOKENS",
        )
    arrays["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"] = inputs
    if not base.tied:
        arrays["base_model.model.lm_head.token_adapter.trainable_tokens_delta"] = outputs
    write_weights(target, arrays, bfloat16=kinds == {"BF16"})
    return [int(number) for number in rows.array("ids")]
