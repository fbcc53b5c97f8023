"""Export: a revision as a plain PEFT folder, which `PeftModel.from_pretrained` loads."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from loradeck_registry.bases.shapes import BaseShapes, read_shapes
from loradeck_registry.cache import scratch_folder
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.servability.adapter import CONFIG, DTYPES, MODEL, NEW_TOKENS
from loradeck_registry.transfer.conversion import encode
from loradeck_registry.transfer.lora_pairs import stored, stored_pairs
from loradeck_registry.transfer.new_rows import own_matrix
from loradeck_registry.transfer.token_pairs import rank_settings, with_rows
from loradeck_registry.weights import Weights, write_weights


def check_exportable(revision: Revision) -> None:
    """Raise PreconditionError (NOT_AN_ADAPTER) unless there is something to convert."""
    if revision.manifest.kind != "adapter":
        raise PreconditionError(
            f"{revision} is of kind {revision.manifest.kind}: `registry pull` gives its files as they are",
            reason="NOT_AN_ADAPTER",
        )


def export_peft(registry: Registry, revision: Revision, base_folder: Path, destination: Path) -> list[str]:
    """Write an adapter of the base in `base_folder` into the absent or empty folder `destination`; returns what its
    user should know.

    New tokens become PEFT's trainable tokens, which need a base whose embedding has their rows; `added_tokens.json`
    names them, for an import too. Beside LoRA on the whole embedding, and where a tied base is given different rows for
    its two sides, they become LoRA of their own (`token_pairs`). Raises PreconditionError (NOT_AN_ADAPTER, NOT_EMPTY).
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
            base = read_shapes(base_folder)
            rows = Weights(source / NEW_TOKENS)
            ids = [int(number) for number in rows.array("ids")]
            if _need_pairs(config, rows, base):
                config = _write_pairs(source, part / MODEL, rows, ids, config, base_folder, base)
                notes.append("its new tokens are LoRA on embedding and head, exact where the difference to the base's "
                             f"rows has an exact form in {rows.tensors['input_rows'].dtype}")  # fmt: skip
            else:
                _merge_rows(source, part / MODEL, rows, base)
                config["trainable_token_indices"] = {name.rpartition(".")[2]: ids for name in _row_modules(base)}
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


def _row_modules(base: BaseShapes) -> tuple[str, ...]:
    return (base.embedding,) if base.tied else base.whole


def _need_pairs(config: Mapping[str, Any], rows: Weights, base: BaseShapes) -> bool:
    """Whether PEFT cannot train these tokens beside what else the adapter does."""
    whole = {name.rpartition(".")[2] for name in base.whole} & set(config["target_modules"])
    return bool(whole) or (base.tied and bytes(rows.raw("input_rows")) != bytes(rows.raw("output_rows")))


def _write_pairs(
    source: Path,
    target: Path,
    rows: Weights,
    ids: list[int],
    config: dict[str, Any],
    base_folder: Path,
    base: BaseShapes,
) -> dict[str, Any]:
    """LoRA tensors, new rows among them, in one file; returns the configuration that goes with it."""
    pairs = stored_pairs(Weights(source / MODEL)) if (source / MODEL).exists() else {}
    inputs, outputs = (
        rows.float32(name) - own_matrix(base_folder, side, base, base.rows)[ids]
        for name, side in (("input_rows", "input"), ("output_rows", "output"))
    )
    pairs = with_rows(pairs, ids, (inputs, outputs), base)
    dtype = DTYPES[rows.tensors["input_rows"].dtype]
    tensors = {name: encode(matrix, dtype)[0] for name, matrix in stored(pairs, base).items()}
    write_weights(target, tensors, bfloat16=dtype == "bfloat16")
    return rank_settings(pairs, config, base)


def _merge_rows(source: Path, target: Path, rows: Weights, base: BaseShapes) -> None:
    """LoRA tensors and new rows in one file under PEFT's names."""
    arrays: dict[str, NDArray[Any]] = {}
    kinds = {rows.tensors["input_rows"].dtype}
    if (source / MODEL).exists():
        model = Weights(source / MODEL)
        arrays = {name: model.array(name) for name in model.tensors}
        kinds |= {tensor.dtype for tensor in model.tensors.values()}
    if len(kinds) != 1:
        raise PreconditionError("new tokens and LoRA are stored in different precisions", reason="DTYPE")
    for module, name in zip(_row_modules(base), ("input_rows", "output_rows"), strict=False):
        arrays[f"base_model.model.{module}.token_adapter.trainable_tokens_delta"] = rows.array(name)
    write_weights(target, arrays, bfloat16=kinds == {"BF16"})
