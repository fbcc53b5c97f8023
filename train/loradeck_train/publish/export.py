"""Trained weights as files in the published format: adapter, new rows, or a whole checkpoint."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from loradeck_registry.bases.shapes import BaseShapes, read_shapes
from loradeck_train.model.build import TrainingModel
from loradeck_train.model.new_rows import trained_rows
from loradeck_train.prepare import Prepared
from loradeck_train.publish.changes import Changes, changes_of, padded
from loradeck_train.publish.merging import merge_into, save_checkpoint

CONFIG, MODEL, NEW_TOKENS = "adapter_config.json", "adapter_model.safetensors", "new_tokens.safetensors"
PREFIX = "base_model.model."


def export(trained: TrainingModel, prepared: Prepared, folder: Path) -> dict[str, float] | None:
    """Write what `prepared.recipe` publishes to `folder`; returns what converting DoRA kept, if it was converted.

    Raises PreconditionError (UNTRAINED) if training has not moved the weights at all.
    """
    recipe, dtype = prepared.recipe, prepared.recipe.publish.dtype
    if recipe.method == "full":
        # The parameters alone: a model's own tables (rotary positions, for example) are not rounded when it is loaded.
        for parameter in trained.causal.parameters():
            parameter.data = parameter.data.to(getattr(torch, dtype))
        save_checkpoint(trained.causal, prepared.tokenizer, folder)
        return None
    changes = changes_of(trained, recipe.adapter)
    rows = new_rows(trained, prepared)
    if recipe.publish.merged:
        save_checkpoint(merge_into(prepared.base.folder, changes, rows, dtype), prepared.tokenizer, folder)
        return None
    write_adapter(changes, rows, folder, dtype, read_shapes(prepared.base.folder))
    return changes.fidelity


def new_rows(trained: TrainingModel, prepared: Prepared) -> tuple[Tensor, Tensor, Tensor] | None:
    """Ids of the added tokens and their rows of embedding and head, float32 on the CPU; None without added tokens."""
    added = [token.id for token in prepared.task.added_tokens]
    if not added:
        return None
    found = trained_rows(trained.causal)
    if found is None:
        from loradeck_train.model.matrices import matrices

        # Not trained themselves: what they started from stands in the matrices.
        found = tuple(matrix[added] for matrix in matrices(trained.causal))
    inputs, outputs = (rows.detach().float().cpu() for rows in found)
    return torch.tensor(added, dtype=torch.int64), inputs, outputs


def write_adapter(
    changes: Changes, rows: tuple[Tensor, Tensor, Tensor] | None, folder: Path, dtype: str, base: BaseShapes
) -> None:
    """Write a PEFT adapter that PEFT and vLLM load alike: alpha = rank, one rank, tensors in `dtype`, the rows of new
    tokens in a file of their own, and never a whole embedding matrix. On a tied `base` a change of the one matrix is
    written for both sides, each of which PEFT and engines treat by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {base.embedding: changes.embedding, base.head: changes.head or (changes.embedding if base.tied else None)}
    pairs, rank = padded(changes.pairs | {name: pair for name, pair in whole.items() if pair is not None})
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in pairs.items():
        if name == base.embedding:
            tensors[f"{PREFIX}{name}.lora_embedding_A"] = _stored(b.t(), dtype)
            tensors[f"{PREFIX}{name}.lora_embedding_B"] = _stored(a.t(), dtype)
        else:
            tensors[f"{PREFIX}{name}.lora_A.weight"] = _stored(a, dtype)
            tensors[f"{PREFIX}{name}.lora_B.weight"] = _stored(b, dtype)
    save_file(tensors, str(folder / MODEL), metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in pairs}),
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    if rows is not None:
        ids, inputs, outputs = rows
        new = {"ids": ids, "input_rows": _stored(inputs, dtype), "output_rows": _stored(outputs, dtype)}
        save_file(new, str(folder / NEW_TOKENS))


def _stored(tensor: Tensor, dtype: str) -> Tensor:
    # A copy: tied rows are one tensor in memory, and a file wants two.
    return tensor.detach().to("cpu", getattr(torch, dtype), copy=True).contiguous()
