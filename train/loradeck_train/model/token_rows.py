"""New tokens' rows beside the embedding: the result of PEFT's trainable tokens without a copy of the whole matrix.

PEFT puts the trained rows into a copy of the matrix at every pass, and backward makes a gradient for all its rows.
With 152 thousand rows that is more memory than the rest of a small model. Here rows are looked up where tokens stand.
"""

from typing import Any

import torch
from torch import Tensor, nn


def install_token_rows(model: nn.Module) -> int:
    """Give the embeddings that PEFT trains rows of the leaner forward; returns how many got it. Heads are left alone:
    the loss takes their rows by itself (`head_parts`)."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    changed = 0
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer) and _is_plain(module):
            module.forward = _forward_of(module)
            changed += 1
    return changed


def remove_token_rows(model: nn.Module) -> None:
    """Undo `install_token_rows`."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    for module in model.modules():
        if isinstance(module, TrainableTokensLayer):
            module.__dict__.pop("forward", None)


def head_parts(head: Any) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None] | None:
    """Weight, bias, trained rows and their ids of a causal model's head; None where it is anything but a plain linear
    layer, with or without PEFT's trained rows (a LoRA on the head, for example)."""
    if type(head) is nn.Linear:
        return head.weight, head.bias, None, None
    adapter = getattr(head, "token_adapter", None)
    if adapter is None or type(adapter.base_layer) is not nn.Linear or list(adapter.token_indices) != ["default"]:
        return None
    rows = adapter.trainable_tokens_delta["default"]
    ids = torch.tensor(adapter.token_indices["default"], device=rows.device)
    return adapter.base_layer.weight, adapter.base_layer.bias, rows, ids


def _is_plain(module: Any) -> bool:
    return type(module.base_layer) is nn.Embedding and list(module.token_indices) == ["default"]


def _forward_of(module: Any) -> Any:
    base = module.base_layer
    ids = sorted(module.token_indices["default"])
    order = [module.token_indices["default"].index(i) for i in ids]

    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        # Looked up at every pass: where weights are sharded, a pass has parameters of its own.
        rows = module.trainable_tokens_delta["default"]
        known = torch.tensor(ids, device=x.device)
        place = torch.searchsorted(known, x).clamp_max(len(ids) - 1)
        new = known[place] == x
        found: Tensor = nn.functional.embedding(x, base.weight, base.padding_idx)
        if not new.any():
            # The rows still take part in the graph: a step in which none of them occurs gives them a gradient of zero.
            return found + 0.0 * rows.sum().to(found.dtype)
        looked_up = rows[torch.tensor(order, device=x.device)[place[new]]]
        return found.index_put((new,), looked_up.to(found.dtype))

    return forward
