"""What the trainer is fed: padded groups of like lengths, packed batches, or filled rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_train.data.batches import Collator, EncodedDataset, LengthGroupedSampler
from loradeck_train.data.encoding import Encoded
from loradeck_train.data.filling import fill_rows
from loradeck_train.data.packing import PackingCollator, RowsDataset, ShuffledSampler
from loradeck_train.loop.world import World
from loradeck_train.recipe.settings import Recipe


@dataclass(frozen=True)
class Feed:
    """Items to batch, the order they come in, and how a batch is made of them."""

    dataset: Any
    sampler: Any
    collator: Any


def training_feed(recipe: Recipe, examples: Sequence[Encoded], max_length: int, pad_token_id: int) -> Feed:
    """The recipe's way of laying out training examples. The order depends on seed and epoch alone."""
    dataset = EncodedDataset(examples, learn_prompt=recipe.loss == "all")
    if recipe.packing == "off":
        # The processes of a run share a group of like lengths.
        sampler = LengthGroupedSampler(
            [e.length for e in examples], recipe.optimisation.batch_size * World.here().size, recipe.seed
        )
        return Feed(dataset, sampler, Collator(pad_token_id))
    if recipe.packing == "batch":
        return Feed(dataset, ShuffledSampler(len(examples), recipe.seed), PackingCollator())
    rows = fill_rows([e.length for e in examples], max_length, recipe.seed)
    return Feed(RowsDataset(dataset, rows), ShuffledSampler(len(rows), recipe.seed), PackingCollator())
