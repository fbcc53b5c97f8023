"""Attention over packed rows: every example attends to itself alone, and no mask as large as the row squared is built.

A packed row holds many examples behind one another; `cu_seq_lens_q` says where each starts (the names are those of
transformers' flash attention, so that its kernels take the same batches). Where an architecture needs more than plain
causal attention (a sliding window, soft-capped scores), transformers' own block mask does the same from `position_ids`.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

PACKED = "loradeck_packed"
"""Name under which transformers finds it: `attn_implementation`."""
_SPREAD = 0.75
_SHORT = 1024


def register_packed_attention() -> None:
    """Make `PACKED` known to transformers. Idempotent."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _mask)


def supports_packed(config: Any) -> bool:
    """Whether plain causal attention is all that an architecture needs of its attention function."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    capped = getattr(text, "attn_logit_softcapping", None)
    return window is None and kinds == {"full_attention"} and capped is None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`query` [1, heads, tokens, size], `key` and `value` [1, groups, tokens, size] of one packed row; the answer is
    [1, tokens, heads, size]. Without `cu_seq_lens_q` the batch is not packed, and transformers' own sdpa answers."""
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return found
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    scale = scaling if scaling is not None else q.shape[-1] ** -0.5
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and not dropout:
        return _on_gpu(q, k, v, cu_seq_lens_q, scale)[None], None
    output = torch.empty_like(q)
    for start, lengths, order in _groups(cu_seq_lens_q):
        index = _index(start, lengths, order, q.device)
        answer = _causal(_pad(q, index), _pad(k, index), _pad(v, index), scale, dropout).transpose(1, 2)
        there = index >= 0
        output = output.index_put((index[there],), answer[there])
    return output[None], None


def _on_gpu(q: Tensor, k: Tensor, v: Tensor, borders: Tensor, scale: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest = int(borders.diff().max())
    found: Tensor = varlen_attn(
        q,
        k,
        v,
        borders,
        borders,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return found


def _groups(borders: Tensor) -> list[tuple[list[int], list[int], int]]:
    """Starts, lengths and the longest length of examples that are computed together: the longest first, and none
    shorter than `_SPREAD` of it, so that little of a block is padding."""
    edges = borders.tolist()
    spans = sorted(((end - start, start) for start, end in pairwise(edges) if end > start), reverse=True)
    groups: list[tuple[list[int], list[int], int]] = []
    for length, start in spans:
        if not groups or length < _SPREAD * groups[-1][2]:
            groups.append(([], [], length))
        groups[-1][0].append(start)
        groups[-1][1].append(length)
    return groups


def _index(starts: list[int], lengths: list[int], longest: int, device: torch.device) -> Tensor:
    """Positions in the row, [examples, longest]; -1 is padding."""
    position = torch.arange(longest, device=device)[None, :]
    start = torch.tensor(starts, device=device)[:, None]
    length = torch.tensor(lengths, device=device)[:, None]
    return torch.where(position < length, start + position, -1)


def _pad(tensor: Tensor, index: Tensor) -> Tensor:
    """[tokens, heads, size] to [examples, heads, longest, size]. What stands in the padding is never read: it lies on
    the right, where causal attention does not look."""
    return tensor[index.clamp_min(0)].transpose(1, 2)


def _causal(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
    if q.device.type == "cpu" and q.shape[2] <= _SHORT and not dropout:
        return _products(q, k, v, scale)
    return nn.functional.scaled_dot_product_attention(
        q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def _products(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Plain matrix products: on the CPU the fused kernel's backward pass takes longer while sequences are short."""
    examples, heads, length, size = q.shape
    groups = k.shape[1]
    q = (q * scale).reshape(examples, groups, heads // groups, length, size)
    scores = q @ k.unsqueeze(2).transpose(-1, -2)
    later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill_(later, float("-inf")).softmax(-1, dtype=torch.float32).to(v.dtype)
    return (weights @ v.unsqueeze(2)).reshape(examples, heads, length, size)


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask for packed rows and for batches without padding; transformers' own for padded batches."""
    if attention_mask is None:
        return None
    from transformers.masking_utils import sdpa_mask

    mask: Tensor | None = sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
    return mask
