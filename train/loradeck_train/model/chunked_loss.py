"""Cross-entropy that never holds the logits of more than a chunk of positions, forward or backward.

With a vocabulary of 152 thousand the logits of one position take 594 KiB in float32, more than all its activations in
a small model. Liger's fused linear cross-entropy (Hsu et al., 2024) does the same in Triton; this is the idea in plain
torch, for any device: a chunk's gradient is computed while its logits are at hand; backward only scales it.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Bytes of float32 logits that exist at a time."""
_LEAST = 16


def chunk_of(vocabulary: int, budget: int = CHUNK_BYTES) -> int:
    """Positions per chunk, so that their float32 logits take at most `budget` bytes."""
    return max(_LEAST, budget // (4 * vocabulary))


class _ChunkedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    """Sum of the cross-entropies of hidden [n, size] against targets [n], through a head weight [vocabulary, size]."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        ids: Tensor | None,
        targets: Tensor,
        chunk: int,
    ) -> Tensor:
        kind = _product_dtype(hidden)
        low, low_rows = weight.to(kind), None if rows is None else rows.to(kind)
        total = hidden.new_zeros((), dtype=torch.float32)
        wants = ctx.needs_input_grad
        for_hidden = torch.empty_like(hidden) if wants[0] else None
        for_weight = torch.zeros_like(weight) if wants[1] else None
        for_bias = torch.zeros_like(bias) if wants[2] and bias is not None else None
        for_rows = torch.zeros_like(rows) if wants[3] and rows is not None else None
        for start in range(0, len(hidden), chunk):
            part = hidden[start : start + chunk].to(kind)
            goal = targets[start : start + chunk, None]
            logits = part @ low.t()
            if low_rows is not None:
                logits[:, ids] = part @ low_rows.t()
            if bias is not None:
                logits += bias.to(kind)
            scores = logits.float()
            del logits
            normaliser = scores.logsumexp(-1, keepdim=True)
            total += (normaliser - scores.gather(1, goal)).sum()
            if not any(wants[:4]):
                continue
            # From here `scores` is the gradient for the logits: softmax minus one at the target.
            scores.sub_(normaliser).exp_().scatter_add_(1, goal, scores.new_full(goal.shape, -1.0))
            if for_bias is not None:
                for_bias += scores.sum(0).to(for_bias.dtype)
            outer = scores.to(kind)
            del scores
            own = None
            if low_rows is not None:
                own = outer[:, ids]
                outer[:, ids] = 0
            if for_hidden is not None:
                inner = outer @ low
                if own is not None and low_rows is not None:
                    inner = inner.addmm_(own, low_rows)
                for_hidden[start : start + chunk] = inner.to(hidden.dtype)
            if for_weight is not None and for_weight.dtype == kind:
                for_weight.addmm_(outer.t(), part)
            elif for_weight is not None:
                for_weight += outer.t() @ part
            if for_rows is not None and own is not None:
                for_rows += (own.t() @ part).to(for_rows.dtype)
        ctx.found = (for_hidden, for_weight, for_bias, for_rows)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scaled = tuple(None if found is None else found.mul_(gradients[0].to(found.dtype)) for found in ctx.found)
        ctx.found = ()
        return (*scaled, None, None, None)


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    rows: Tensor | None = None,
    ids: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Sum of the cross-entropies in float32; products run in autocast's precision where it is on.

    `hidden` [n, size], `targets` [n]. `rows` [k, size] stand in the place of the head's rows `ids` [k], which then get
    no gradient: the trained tokens of an adapter, without a copy of the head. `backward` may run once.
    """
    total: Tensor = _ChunkedCrossEntropy.apply(
        hidden, weight, bias, rows, ids, targets, chunk or chunk_of(weight.shape[0])
    )
    return total


def _product_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        found: torch.dtype = torch.get_autocast_dtype(kind)
        return found
    return hidden.dtype
