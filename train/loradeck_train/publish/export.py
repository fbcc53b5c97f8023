"""Trained weights as files in the published format: adapter, new rows, or a whole checkpoint."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from loradeck_registry.errors import PreconditionError
from loradeck_tasks.task import Task
from loradeck_train.model.build import TrainingModel, trained_rows

CONFIG, MODEL, NEW_TOKENS = "adapter_config.json", "adapter_model.safetensors", "new_tokens.safetensors"


def export_adapter(trained: TrainingModel, task: Task, folder: Path, dtype: str) -> None:
    """Write a PEFT adapter that PEFT and vLLM load alike: the scale folded into B (in float32) so that alpha = rank,
    tensors in `dtype`, the rows of new tokens in a file of their own, and never a whole embedding matrix.

    Raises PreconditionError (UNTRAINED) if training has not moved the weights at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    ranks: set[int] = set()
    leaves: set[str] = set()
    moved = False
    for name, module in trained.model.named_modules():
        if "default" not in getattr(module, "lora_A", ()):
            continue
        layer: Any = module
        a = layer.lora_A["default"].weight.detach().float()
        b = layer.lora_B["default"].weight.detach().float() * float(layer.scaling["default"])
        moved = moved or bool(b.any())
        ranks.add(a.shape[0])
        leaves.add(name.rsplit(".", 1)[-1])
        tensors[f"{name}.lora_A.weight"] = _stored(a, dtype)
        tensors[f"{name}.lora_B.weight"] = _stored(b, dtype)
    if not moved:
        raise PreconditionError("training has not moved the adapter: every B is zero", reason="UNTRAINED")
    assert len(ranks) == 1, "one rank for all modules"
    save_file(tensors, str(folder / MODEL), metadata={"format": "pt"})
    rank = ranks.pop()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(leaves),
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    added = [token.id for token in task.added_tokens]
    if added:
        rows = trained_rows(trained.causal)
        assert rows is not None, "a task with added tokens trains their rows"
        new = {
            "ids": torch.tensor(added, dtype=torch.int64),
            "input_rows": _stored(rows[0], dtype),
            "output_rows": _stored(rows[1], dtype),
        }
        save_file(new, str(folder / NEW_TOKENS))


def export_checkpoint(trained: TrainingModel, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Write all weights as a safetensors model folder with its tokenizer, added tokens included. The model in memory is
    cast to `dtype` on the way."""
    folder.mkdir(parents=True, exist_ok=True)
    causal: Any = trained.causal
    causal.to(getattr(torch, dtype))
    causal.config.use_cache = True
    causal.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _stored(tensor: Tensor, dtype: str) -> Tensor:
    # A copy: tied rows are one tensor in memory, and a file wants two.
    return tensor.detach().to("cpu", getattr(torch, dtype), copy=True).contiguous()
