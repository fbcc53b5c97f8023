"""The slots of a layer in the form that the processor's matrix unit reads: bfloat16, in tiles of 16 columns."""

import ctypes
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from loradeck_serve.engine.plugin.kernel import BLOCK, Kernel, Tiles
from loradeck_serve.engine.plugin.plan import Plan

INNER = 32
"""Length of a tile in the direction of the sum."""


class TiledLayer:
    """One linear layer's adapters. Each slot has tensors of its own, of its own adapter's rank."""

    def __init__(self, a_stacked: Sequence[Tensor], b_stacked: Sequence[Tensor], slices: Sequence[int]) -> None:
        """As for `operations.PackedLayer`; the stacks are bfloat16."""
        self._sources = list(zip(a_stacked, b_stacked, slices, strict=True))
        slots, self._input = a_stacked[0].shape[0], a_stacked[0].shape[-1]
        self._versions = [-1] * slots
        self._held: dict[int, tuple[Tensor, Tensor]] = {}
        """Of each slot in use, what the pointers point to."""
        self._pointers = torch.zeros(2, slots, dtype=torch.int64)
        self._written = self._pointers.numpy()
        self._ranks = torch.zeros(slots, dtype=torch.int64)
        self._starts = torch.tensor([0, *itertools.accumulate(slices)])
        self._tiles = Tiles(
            self._pointers[0].data_ptr(),
            self._pointers[1].data_ptr(),
            self._ranks.data_ptr(),
            self._starts.data_ptr(),
            self._input,
            round_up(self._input, INNER),
            len(slices),
        )
        self.address = ctypes.addressof(self._tiles)
        """Where the kernel finds it; stays the same when slots change hands."""

    def update(self, slots: Sequence[int], ranks: Sequence[int], versions: Sequence[int]) -> None:
        """Bring `slots` up to date: `versions` counts how often each slot was filled, `ranks` has each one's rank."""
        for slot in slots:
            if self._versions[slot] != versions[slot]:
                self._copy(slot, ranks[slot])
                self._versions[slot] = versions[slot]

    def _copy(self, slot: int, rank: int) -> None:
        even = max(2, round_up(rank, 2))
        inside = even if even <= INNER else round_up(rank, INNER)
        rows, columns = len(self._sources) * inside, round_up(self._input, INNER)
        parts = [source[slot, 0, :rank] for source, _, _ in self._sources]
        if rank == inside and rows % BLOCK == 0 and columns == self._input:
            a = torch.cat(parts)
        else:
            a = torch.zeros(round_up(rows, BLOCK), columns, dtype=torch.bfloat16)
            for number, part in enumerate(parts):
                a[number * inside : number * inside + rank, : self._input] = part
        b = []
        for _, source, width in self._sources:
            part = source[slot, 0, :width, :rank]
            if rank != inside or width % BLOCK:
                part = torch.zeros(round_up(width, BLOCK), inside, dtype=torch.bfloat16)
                part[:width, :rank] = source[slot, 0, :width, :rank]
            b.append(in_tiles(part))
        held = in_tiles(a), b[0] if len(b) == 1 else torch.cat(b)
        self._held[slot] = held
        # Through NumPy: this runs for every layer whenever an adapter gets a slot.
        self._written[:, slot] = [tensor.data_ptr() for tensor in held]
        self._ranks[slot] = inside

    def add(self, kernel: Kernel, y: Tensor, x: Tensor, plan: Plan) -> None:
        """Add x A^T B^T to `y` [n, columns] in place, for `x` [n, input], with each row's own slot, both bfloat16."""
        kernel.add_tiles(y, x, plan.address, self.address)


def in_tiles(matrix: Tensor) -> Tensor:
    """The transpose of `matrix` [columns, inner], flat, as tiles [columns / 16, inner / 2, 16, 2]."""
    columns, inner = matrix.shape
    return matrix.view(columns // BLOCK, BLOCK, inner // 2, 2).permute(0, 2, 1, 3).reshape(-1)


def round_up(value: int, multiple: int) -> int:
    """The least multiple that is not below `value`."""
    return -(-value // multiple) * multiple
