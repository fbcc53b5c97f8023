"""Batches: examples of like length together, in an order fixed by seed and epoch; padding and labels."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from loradeck_train.data.encoding import Encoded

IGNORED = -100
"""Label of a position without loss: prompt and padding."""
_POOL = 32


class EncodedDataset(Dataset):  # type: ignore[misc]
    """Encoded examples as the trainer takes them; `learn_prompt` puts the loss on the prompt as well."""

    def __init__(self, examples: Sequence[Encoded], learn_prompt: bool = False) -> None:
        self._examples = examples
        self._learn_prompt = learn_prompt

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        example = self._examples[index]
        # Nothing stands before the first token that could tell it.
        prompt = [IGNORED, *example.prompt[1:]] if self._learn_prompt else [IGNORED] * len(example.prompt)
        return {
            "input_ids": [*example.prompt, *example.answer],
            "labels": [*prompt, *example.answer],
            "rows": [index],
        }


class LengthGroupedSampler(Sampler):  # type: ignore[misc]
    """Indices so that consecutive groups of `batch_size` have like lengths, and the groups come in random order.

    Unlike a plain sort within large pools, the order of the groups says nothing about length. The order depends on seed
    and epoch alone, so that a resumed run sees the same batches.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        pool = self._batch_size * _POOL
        batches: list[list[int]] = []
        for start in range(0, len(order), pool):
            part = sorted(order[start : start + pool], key=lambda index: self._lengths[index])
            batches += [part[i : i + self._batch_size] for i in range(0, len(part), self._batch_size)]
        # A short batch stays last: in the middle it would shift the borders of all that follow.
        short = [batch for batch in batches if len(batch) < self._batch_size]
        full = [batch for batch in batches if len(batch) == self._batch_size]
        for index in torch.randperm(len(full), generator=generator).tolist():
            yield from full[index]
        for batch in short:
            yield from batch


class Collator:
    """Pads a batch on the right to its longest example. `rows` says which examples it holds."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad = pad_token_id

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`input_ids`, `attention_mask`, `labels`, each [batch, longest]; `rows`, their indices in the data."""
        longest = max(len(f["input_ids"]) for f in features)
        ids = torch.full((len(features), longest), self._pad, dtype=torch.long)
        mask = torch.zeros((len(features), longest), dtype=torch.long)
        labels = torch.full((len(features), longest), IGNORED, dtype=torch.long)
        for row, feature in enumerate(features):
            length = len(feature["input_ids"])
            ids[row, :length] = torch.tensor(feature["input_ids"])
            mask[row, :length] = 1
            labels[row, :length] = torch.tensor(feature["labels"])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "rows": rows_of(features)}


def rows_of(features: Sequence[dict[str, Any]]) -> list[int]:
    """Indices in the data of a batch's examples."""
    return [row for feature in features for row in feature["rows"]]
