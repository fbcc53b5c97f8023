"""Base and adapter as one checkpoint: changes added in float32, tied matrices kept tied while that is true."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loradeck_train.model.loading import load_causal
from loradeck_train.model.matrices import is_tied
from loradeck_train.publish.changes import Changes

Rows = tuple[Tensor, Tensor, Tensor]
"""Ids of new tokens, and their rows of embedding and head."""


def merge_into(base: Path, changes: Changes, rows: Rows | None, dtype: str) -> Any:
    """The base in `base` with the changes added, in `dtype`: each weight is summed in float32 and rounded once.

    A tied head that the changes or rows take apart from its embedding gets a matrix of its own, and the configuration
    says so: reloaded as tied, one of the two would be lost.
    """
    causal = load_causal(base, getattr(torch, dtype))
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    with torch.no_grad():
        if rows is not None:
            # Before the changes: LoRA on an embedding moves the new tokens' rows like all others.
            ids, inputs, outputs = rows
            if not torch.equal(inputs, outputs):
                untie(causal)
            embedding.weight[ids] = inputs.to(embedding.weight)
            if not is_tied(causal):
                head.weight[ids] = outputs.to(head.weight)
        if changes.head is not None:
            untie(causal)
        for module, pair in ((embedding, changes.embedding), (head, changes.head)):
            if pair is not None:
                a, b = pair
                _add(module, nn.functional.pad(b @ a, (0, 0, 0, len(module.weight) - len(b))))
        for name, (a, b) in changes.pairs.items():
            change = changes.whole.get(name)
            _add(causal.get_submodule(name), b @ a if change is None else change)
    return causal


def _add(module: Any, change: Tensor) -> None:
    module.weight.copy_((module.weight.float() + change).to(module.weight.dtype))


def save_checkpoint(causal: Any, tokenizer: Any, folder: Path) -> None:
    """Write a causal model as a safetensors folder with its tokenizer, added tokens included."""
    folder.mkdir(parents=True, exist_ok=True)
    causal.config.use_cache = True
    causal.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def untie(causal: Any) -> None:
    """Give the head a matrix of its own, equal to the embedding's; nothing to do where it has one."""
    if not is_tied(causal):
        return
    head = causal.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    causal.config.tie_word_embeddings = False
