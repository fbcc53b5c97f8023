"""LoRA on a CPU: small matrix products per slot over the rows of that slot, and nothing at all for other rows.

Rows without an adapter and rows of other slots are never read or written for a slot: they are selected, not masked by a
product, so that a slot full of NaN or infinity cannot reach them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """The rows of a batch that belong to one slot."""

    slot: int
    rank: int
    """Rank of the adapter in the slot: the rest of the slot's rows and columns is zero."""
    rows: Tensor | None
    """Indices of the rows (int64), or None for all rows of the batch."""


def group_rows(slots: Sequence[int], ranks: Sequence[int]) -> tuple[Group, ...]:
    """Groups of a batch: `slots` has each row's slot or -1, `ranks` each slot's rank.

    Slots of rank 0 get no group: their adapters change no matrix.
    """
    index = torch.as_tensor(slots, dtype=torch.int64)
    groups = []
    for slot in sorted(set(slots)):
        if slot < 0 or ranks[slot] == 0:
            continue
        rows = (index == slot).nonzero().squeeze(1)
        groups.append(Group(slot, ranks[slot], None if len(rows) == len(slots) else rows))
    return tuple(groups)


def add_lora(
    y: Tensor,
    x: Tensor,
    a_stacked: Sequence[Tensor],
    b_stacked: Sequence[Tensor],
    slices: Sequence[int],
    groups: Sequence[Group],
    scale: float = 1.0,
) -> None:
    """Add x A^T B^T x scale to `y` in place, with each row's own slot.

    `y` is [n, columns] and `x` [n, input]; `a_stacked` has one [slots, 1, rank, input] per slice of the output and
    `b_stacked` one [slots, 1, width, rank]; `slices` are the widths of the output slices, from column 0 on.
    """
    for group in groups:
        own = x if group.rows is None else x.index_select(0, group.rows)
        start = 0
        for a, b, width in zip(a_stacked, b_stacked, slices, strict=True):
            shrunk = own @ a[group.slot, 0, : group.rank].t().to(own.dtype)
            if scale != 1.0:
                shrunk *= scale
            _add(y.narrow(1, start, width), shrunk, b[group.slot, 0, :width, : group.rank], group.rows)
            start += width


def add_lora_embedding(y: Tensor, x: Tensor, b_stacked: Tensor, groups: Sequence[Group]) -> None:
    """Add x B^T to `y` in place, with each row's own slot.

    `x` is [n, rank], looked up in each row's A already; `b_stacked` is [slots, 1, hidden, rank].
    """
    for group in groups:
        own = x if group.rows is None else x.index_select(0, group.rows)
        _add(y, own[:, : group.rank].to(y.dtype), b_stacked[group.slot, 0, :, : group.rank], group.rows)


def _add(y: Tensor, shrunk: Tensor, b: Tensor, rows: Tensor | None) -> None:
    b = b.to(shrunk.dtype)
    if rows is None:
        y.addmm_(shrunk.to(y.dtype), b.t().to(y.dtype))
    else:
        y.index_add_(0, rows, (shrunk @ b.t()).to(y.dtype))
