"""Which rows of a batch belong to which adapter slot, worked out once per batch and used by every layer."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from loradeck_serve.engine.plugin.kernel import BLOCK, Batch

PADDING = 2.0
"""Groups are computed as one padded product unless padding would make it this many times larger."""


@dataclass(frozen=True)
class Group:
    """The rows of one slot."""

    slot: int
    rank: int
    """Rank of the adapter in the slot: what lies behind it in the slot is never read."""
    rows: Tensor | None
    """Indices of the rows (int64), or None for all rows of the batch."""


@dataclass(frozen=True)
class Padded:
    """All groups at once, each padded to the same number of rows."""

    slots: Tensor
    """Slots in order (int64)."""
    first: int | None
    """First slot if the slots follow each other without a gap."""
    gather: Tensor
    """Rows of all groups one after the other, each padded to `size` with rows of the batch (int64)."""
    size: int
    rows: Tensor
    """Rows of all groups one after the other, without padding (int64)."""
    positions: Tensor | None
    """Where `rows` are in `gather`; None where nothing is padded."""


@dataclass(frozen=True)
class Plan:
    """The groups of one batch, never empty."""

    groups: tuple[Group, ...]
    rows: Tensor
    """Rows that have a slot, by slot (int64)."""
    slots: Tensor
    """Slot of each of `rows` (int64)."""
    padded: Padded | None
    """Set where one padded product is cheaper than one product per group."""

    @cached_property
    def blocks(self) -> Tensor:
        """Where in `rows` the kernel's blocks begin, each of rows of one slot, and the end (int64)."""
        first, starts = 0, []
        for group in self.groups:
            count = len(self.rows) if group.rows is None else len(group.rows)
            starts.append(np.arange(first, first + count, BLOCK))
            first += count
        return torch.from_numpy(np.concatenate([*starts, [first]]))

    @cached_property
    def _batch(self) -> Batch:
        rows, slots, blocks = self.rows, self.slots, self.blocks
        return Batch(rows.data_ptr(), slots.data_ptr(), blocks.data_ptr(), len(rows), len(blocks) - 1)

    @cached_property
    def address(self) -> int:
        """Address of the plan in the kernel's form; it lives as long as the plan."""
        return ctypes.addressof(self._batch)


def plan_batch(slots: Sequence[int], ranks: Sequence[int]) -> Plan | None:
    """Plan of a batch: `slots` has each row's slot, or -1 for none; `ranks` each slot's rank.

    None if there is nothing to compute. Slots of rank 0 have no part: their adapters change no matrix.
    """
    of_row = np.asarray(slots, dtype=np.int64)
    table = np.asarray([*ranks, 0], dtype=np.int64)
    active = np.flatnonzero(table[of_row])
    if not len(active):
        return None
    order = active[np.argsort(of_row[active], kind="stable")]
    found, counts = np.unique(of_row[order], return_counts=True)
    rows, row_slots = torch.from_numpy(order), torch.from_numpy(of_row[order])
    if len(found) == 1 and counts[0] == len(of_row):
        return Plan((Group(int(found[0]), int(table[found[0]]), None),), rows, row_slots, None)
    ends = np.cumsum(counts)
    groups = tuple(
        Group(int(slot), int(table[slot]), rows[end - count : end])
        for slot, count, end in zip(found, counts, ends, strict=True)
    )
    size = int(counts.max())
    if len(found) == 1 or len(found) * size > PADDING * len(order):
        return Plan(groups, rows, row_slots, None)
    # Padding repeats the first row of each group: what is computed for it is never used.
    offsets = np.arange(size)
    inside = offsets < counts[:, None]
    gather = order[np.where(inside, (ends - counts)[:, None] + offsets, (ends - counts)[:, None])]
    full = bool(inside.all())
    gap_free = int(found[-1] - found[0]) + 1 == len(found)
    return Plan(
        groups,
        rows,
        row_slots,
        Padded(
            slots=torch.from_numpy(found),
            first=int(found[0]) if gap_free else None,
            gather=torch.from_numpy(gather.reshape(-1)),
            size=size,
            rows=rows,
            positions=None if full else torch.from_numpy(np.flatnonzero(inside)),
        ),
    )
