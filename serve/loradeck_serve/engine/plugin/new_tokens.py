"""New tokens per slot: small tables of rows for the embedding and for the logits, and who may produce which token."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

FILE = "new_tokens.safetensors"


@dataclass(frozen=True)
class NewRows:
    """The rows of one adapter: `ids` [n], `input_rows` and `output_rows` [n, hidden], in the engine's precision."""

    ids: Tensor
    input_rows: Tensor
    output_rows: Tensor


def read_rows(folder: Path, first: int, limit: int, hidden: int, dtype: torch.dtype) -> NewRows | None:
    """The rows in `folder`, if it has any. Raises ValueError unless ids are distinct and in [first, first + limit), and
    rows are finite and `hidden` wide."""
    if not (folder / FILE).is_file():
        return None
    with safe_open(str(folder / FILE), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if tensors.keys() != {"ids", "input_rows", "output_rows"}:
        raise ValueError(f"{FILE} must hold ids, input_rows and output_rows, not {sorted(tensors)}")
    ids = tensors["ids"]
    if ids.dtype != torch.int64 or ids.ndim != 1 or not len(ids) or len(ids.unique()) != len(ids):
        raise ValueError(f"{FILE}: ids must be distinct and int64")
    if int(ids.min()) < first or int(ids.max()) >= first + limit:
        raise ValueError(f"{FILE}: ids must be in {first} to {first + limit - 1}")
    for name in ("input_rows", "output_rows"):
        rows = tensors[name]
        if rows.shape != (len(ids), hidden):
            raise ValueError(f"{FILE}: {name} must be {len(ids)} x {hidden}, not {' x '.join(map(str, rows.shape))}")
        if not rows.to(dtype).isfinite().all():
            raise ValueError(f"{FILE}: {name} holds values that are not finite in {dtype}")
    return NewRows(ids, tensors["input_rows"].to(dtype), tensors["output_rows"].to(dtype))


class NewTokenTables:
    """Rows of all slots. Token `vocabulary` + i of a request in slot s is row i of table s.

    Without slots (an engine without adapters) only the base's own reserved tokens are kept apart.
    """

    def __init__(self, slots: int, table_rows: int, vocabulary: int, rows: int, base_ids: tuple[int, ...]) -> None:
        self.vocabulary = vocabulary
        self.rows = rows
        self._slots = slots
        self._table_rows = table_rows
        base = torch.ones(rows - vocabulary, dtype=torch.bool)
        base[[token - vocabulary for token in base_ids]] = False
        self._base_blocked = base
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._blocked: Tensor | None = None
        self._filled = [False] * slots

    def allocate(self, hidden: int, dtype: torch.dtype, device: Any) -> None:
        """Allocate the tables: 2 x slots x rows x hidden values of `dtype`."""
        shape = (self._slots, self._table_rows, hidden)
        self._input = torch.zeros(shape, dtype=dtype, device=device)
        self._output = torch.zeros(shape, dtype=dtype, device=device)
        # Row 0 is that of requests without an adapter, so that slot + 1 is an index for every request.
        blocked = torch.ones(self._slots + 1, self.rows - self.vocabulary, dtype=torch.bool)
        blocked[0] = self._base_blocked
        self._blocked = blocked.to(device)

    def set_slot(self, slot: int, rows: NewRows | None) -> None:
        """Put an adapter's rows into its slot; None for an adapter that adds none."""
        assert self._input is not None
        assert self._output is not None
        assert self._blocked is not None
        self._blocked[slot + 1] = True
        self._filled[slot] = rows is not None
        if rows is not None:
            index = (rows.ids - self.vocabulary).to(self._input.device)
            self._input[slot, index] = rows.input_rows.to(self._input.device)
            self._output[slot, index] = rows.output_rows.to(self._output.device)
            self._blocked[slot + 1, index] = False

    @property
    def is_filled(self) -> bool:
        """Whether any slot holds an adapter that adds tokens."""
        return any(self._filled)

    def embed(self, embedded: Tensor, ids: Tensor, slots: Tensor) -> None:
        """Put the rows of added tokens into `embedded` [n, hidden], each from its token's slot (`slots` [n], or -1)."""
        if embedded.device.type != "cpu":
            self.embed_static(embedded, ids, slots)
        elif self.is_filled:
            assert self._input is not None
            where = self._added(ids, slots).nonzero().squeeze(1)
            if len(where):
                embedded[where] = self._input[slots[where], ids[where] - self.vocabulary]

    def embed_static(self, embedded: Tensor, ids: Tensor, slots: Tensor) -> None:
        """`embed` without a look at any value, so that a device need not wait and a graph can record it."""
        assert self._input is not None
        index = (ids - self.vocabulary).clamp(0, self._table_rows - 1)
        rows = self._input[slots.clamp_min(0), index]
        embedded.copy_(torch.where(self._added(ids, slots).unsqueeze(-1), rows, embedded))

    def _added(self, ids: Tensor, slots: Tensor) -> Tensor:
        return (ids >= self.vocabulary) & (ids < self.vocabulary + self._table_rows) & (slots >= 0)

    def logits(self, hidden: Tensor, slots: Tensor) -> Tensor | None:
        """Logits [n, table rows] of each row's own table, or None if no slot has one; rows of no slot are undefined."""
        if not self.is_filled:
            return None
        if hidden.device.type != "cpu":
            return self.logits_static(hidden, slots)
        assert self._output is not None
        result = hidden.new_empty(len(hidden), self._table_rows)
        for slot, filled in enumerate(self._filled):
            if filled:
                own = (slots == slot).nonzero().squeeze(1)
                if len(own):
                    result[own] = hidden[own] @ self._output[slot].t()
        return result

    def logits_static(self, hidden: Tensor, slots: Tensor) -> Tensor:
        """`logits` without a look at any value: all tables, then each row's own."""
        assert self._output is not None
        everything = (hidden @ self._output.flatten(0, 1).t()).view(len(hidden), self._slots, self._table_rows)
        return everything[torch.arange(len(hidden), device=hidden.device), slots.clamp_min(0)]

    def blocked(self, slots: Tensor | None, count: int) -> Tensor:
        """Which reserved tokens each of `count` rows must not produce: [count, reserved], true is blocked."""
        if slots is None or self._blocked is None:
            return self._base_blocked.expand(count, -1)
        return self._blocked[slots + 1]
