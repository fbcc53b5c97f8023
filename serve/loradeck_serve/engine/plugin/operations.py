"""LoRA on a CPU: one batched product over the slots in use, and nothing at all for rows without an adapter.

Rows of other slots, and rows of none, are never read for a slot nor written by it: they are selected, not masked by a
product, so that a slot full of NaN or infinity cannot reach them.
"""

import ctypes
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from loradeck_serve.engine.plugin.kernel import MAX_INPUT, Kernel, Layer
from loradeck_serve.engine.plugin.plan import Plan


class PackedLayer:
    """The slots of one layer in the form that a batched product wants.

    All slices of the output share one product: `a` is [slots, slices x rank, input], and `b` [slots, slices x rank,
    columns], block-diagonal. A slot is copied when it was filled anew since it was last used.
    """

    def __init__(
        self,
        a_stacked: Sequence[Tensor],
        b_stacked: Sequence[Tensor],
        slices: Sequence[int],
        dtype: torch.dtype | None = None,
    ) -> None:
        """Take `a_stacked` of [slots, 1, largest rank, input] and `b_stacked` of [slots, 1, width, largest rank], one
        per slice, and the slices' widths, from column 0 on. `dtype` is the precision of the products, by default that
        of the stacks."""
        self._dtype = dtype or a_stacked[0].dtype
        self._sources = list(zip(a_stacked, b_stacked, slices, strict=True))
        self._rank = 0
        self._versions: list[int] = []
        self.a = self.b = torch.empty(0)
        self._starts = torch.tensor([0, *itertools.accumulate(slices)])
        self._layer = Layer()
        self._address = ctypes.addressof(self._layer)

    def update(self, slots: Sequence[int], ranks: Sequence[int], versions: Sequence[int]) -> None:
        """Bring `slots` up to date: `versions` counts how often each slot was filled."""
        rank = max(ranks[slot] for slot in slots)
        if rank > self._rank:
            self._allocate(rank)
        for slot in slots:
            if self._versions[slot] != versions[slot]:
                self._copy(slot, ranks[slot])
                self._versions[slot] = versions[slot]

    def _allocate(self, rank: int) -> None:
        a = self._sources[0][0]
        slots, columns = a.shape[0], sum(width for _, _, width in self._sources)
        self._rank = rank
        self._versions = [-1] * slots
        self.a = torch.zeros(slots, len(self._sources) * rank, a.shape[-1], dtype=self._dtype)
        self.b = torch.zeros(slots, len(self._sources) * rank, columns, dtype=self._dtype)
        self._layer = Layer(
            self.a.data_ptr(),
            self.b.data_ptr(),
            a.shape[-1],
            columns,
            rank,
            len(self._sources),
            self._starts.data_ptr(),
        )
        self._address = ctypes.addressof(self._layer)

    def _copy(self, slot: int, rank: int) -> None:
        self.a[slot] = 0
        self.b[slot] = 0
        start = 0
        for number, (a, b, width) in enumerate(self._sources):
            first = number * self._rank
            self.a[slot, first : first + rank] = a[slot, 0, :rank]
            self.b[slot, first : first + rank, start : start + width] = b[slot, 0, :width, :rank].t()
            start += width

    def add_by_kernel(self, kernel: Kernel, y: Tensor, x: Tensor, plan: Plan) -> None:
        """`add`, for a layer packed in float32, and tensors that `fits` accepts."""
        kernel.add(y, x, plan.address, self._address)

    def add(self, y: Tensor, x: Tensor, plan: Plan) -> None:
        """Add x A^T B^T to `y` [n, columns] in place, for `x` [n, input], with each row's own slot."""
        if plan.padded is None:
            for group in plan.groups:
                a, b = self.a[group.slot], self.b[group.slot]
                own = x if group.rows is None else x.index_select(0, group.rows)
                change = (own.to(self._dtype) @ a.t()) @ b
                if group.rows is None:
                    y.add_(change)
                else:
                    y.index_add_(0, group.rows, change.to(y.dtype))
            return
        padded, count = plan.padded, len(plan.groups)
        if padded.first is not None:
            a, b = self.a.narrow(0, padded.first, count), self.b.narrow(0, padded.first, count)
        else:
            a, b = self.a.index_select(0, padded.slots), self.b.index_select(0, padded.slots)
        own = x.index_select(0, padded.gather).to(self._dtype).view(count, padded.size, x.shape[1])
        change = torch.bmm(torch.bmm(own, a.transpose(1, 2)), b).view(count * padded.size, b.shape[2])
        if padded.positions is not None:
            change = change.index_select(0, padded.positions)
        y.index_add_(0, padded.rows, change.to(y.dtype))


def fits(y: Tensor, x: Tensor) -> bool:
    """Whether the kernel can add to `y` from `x`."""
    return (
        x.dtype == y.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.stride(1) == y.stride(1) == 1
        and x.shape[1] <= MAX_INPUT
    )


def add_lora(
    y: Tensor,
    x: Tensor,
    a_stacked: Sequence[Tensor],
    b_stacked: Sequence[Tensor],
    slices: Sequence[int],
    plan: Plan,
) -> None:
    """Add x A^T B^T to `y` [n, columns] in place, with each row's own slot, without a packed copy of the slots."""
    for group in plan.groups:
        own = x if group.rows is None else x.index_select(0, group.rows)
        start = 0
        for a, b, width in zip(a_stacked, b_stacked, slices, strict=True):
            shrunk = own @ a[group.slot, 0, : group.rank].t().to(own.dtype)
            _add(y.narrow(1, start, width), shrunk, b[group.slot, 0, :width, : group.rank], group.rows)
            start += width


def add_lora_embedding(y: Tensor, x: Tensor, b_stacked: Tensor, plan: Plan) -> None:
    """Add x B^T to `y` [n, hidden] in place, with each row's own slot.

    `x` is [n, largest rank], looked up in each row's A already; `b_stacked` is [slots, 1, hidden, largest rank].
    """
    for group in plan.groups:
        own = x if group.rows is None else x.index_select(0, group.rows)
        _add(y, own[:, : group.rank], b_stacked[group.slot, 0, :, : group.rank], group.rows)


def _add(y: Tensor, shrunk: Tensor, b: Tensor, rows: Tensor | None) -> None:
    change = shrunk.to(y.dtype) @ b.t().to(y.dtype)
    if rows is None:
        y.add_(change)
    else:
        y.index_add_(0, rows, change)
