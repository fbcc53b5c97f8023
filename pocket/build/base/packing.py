"""Packs documents into rows of equal length, with a held-out slice per source, and draws batches by step."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus import Document
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

HELD_OUT_EVERY = 100  # one document in so many is held out


@dataclass
class Packed:
    """Training rows (count, length), uint16, and held-out rows by source."""

    train: NDArray[np.uint16]
    held_out: dict[str, NDArray[np.uint16]]
    _order: tuple[int, NDArray[np.int64]] | None = None

    def batch(self, step: int, size: int, seed: int) -> NDArray[np.uint16]:
        """The rows of a step: every pass over the corpus has its own order, fixed by the seed."""
        steps = len(self.train) // size
        epoch, place = divmod(step, steps)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([seed, epoch]).permutation(len(self.train)))
        return self.train[self._order[1][place * size : (place + 1) * size]]


def pack(documents: list[Document], tokenizer: PreTrainedTokenizerFast, work: Path, length: int) -> dict[str, object]:
    """Write train.npy and held-out-<source>.npy, and return documents and tokens per source."""
    end = tokenizer.pad_token_id
    train: list[int] = []
    held: dict[str, list[int]] = defaultdict(list)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"documents": 0, "tokens": 0})
    for first in range(0, len(documents), 1000):
        block = documents[first : first + 1000]
        encoded = tokenizer([document.text for document in block], verbose=False)["input_ids"]
        for offset, (document, ids) in enumerate(zip(block, encoded, strict=True)):
            target = held[document.source] if (first + offset) % HELD_OUT_EVERY == 0 else train
            target.extend([*ids, end])
            if target is train:
                counts[document.source]["documents"] += 1
                counts[document.source]["tokens"] += len(ids) + 1
    np.save(work / "train.npy", rows(train, length))
    for source, tokens in held.items():
        np.save(work / f"held-out-{source}.npy", rows(tokens, length))
    return {"train": dict(counts), "held_out_tokens": {source: len(tokens) for source, tokens in held.items()}}


def rows(tokens: list[int], length: int) -> NDArray[np.uint16]:
    """Cut a stream of tokens into rows; the incomplete last row is left out."""
    count = len(tokens) // length
    return np.array(tokens[: count * length], dtype=np.uint16).reshape(count, length)


def load_packed(work: Path) -> Packed:
    """What `pack` wrote."""
    slices = sorted(work.glob("held-out-*.npy"))
    return Packed(np.load(work / "train.npy"), {path.stem.removeprefix("held-out-"): np.load(path) for path in slices})
