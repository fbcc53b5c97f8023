"""Packing: examples behind one another in one row without padding, each with positions and attention of its own."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from loradeck_train.data.batches import IGNORED, rows_of


class PackingCollator:
    """Lays a batch into one row; what transformers calls padding-free, with the names its attention kernels take.

    A batch item may hold several examples already (`lengths`). The first label of each example is never learned: the
    token before it belongs to another example.
    """

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`input_ids`, `labels`, `position_ids`, each [1, tokens]; `cu_seq_lens_q` and `cu_seq_lens_k` int32 [examples
        + 1], where each example starts and the last one ends; `max_length_q` and `max_length_k`, the longest;
        `rows`, the examples' indices in the data."""
        lengths = [n for f in features for n in f.get("lengths", [len(f["input_ids"])])]
        ids = torch.tensor([i for f in features for i in f["input_ids"]])[None]
        labels = torch.tensor([i for f in features for i in f["labels"]])[None]
        borders = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        labels[0, borders[:-1].long()] = IGNORED
        positions = torch.cat([torch.arange(n) for n in lengths])[None]
        longest = max(lengths)
        return {
            "input_ids": ids,
            "labels": labels,
            "position_ids": positions,
            "cu_seq_lens_q": borders,
            "cu_seq_lens_k": borders,
            "max_length_q": longest,
            "max_length_k": longest,
            "rows": rows_of(features),
        }


class RowsDataset(Dataset):  # type: ignore[misc]
    """Rows of several examples as the trainer takes them."""

    def __init__(self, examples: Dataset, rows: Sequence[Sequence[int]]) -> None:
        self._examples = examples
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        found = [self._examples[i] for i in self._rows[index]]
        return {
            "input_ids": [i for f in found for i in f["input_ids"]],
            "labels": [i for f in found for i in f["labels"]],
            "lengths": [len(f["input_ids"]) for f in found],
            "rows": [i for f in found for i in f["rows"]],
        }


class ShuffledSampler(Sampler):  # type: ignore[misc]
    """Every index once, in an order that depends on seed and epoch alone, so that a resumed run sees the same one."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        yield from torch.randperm(self._count, generator=generator).tolist()
