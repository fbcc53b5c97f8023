"""New tokens' rows as LoRA on embedding and head: rank one each, for what PEFT's trainable tokens cannot express.

PEFT trains no tokens of a matrix that carries LoRA, and ties their rows on a tied base. A token's row is there the
base's plus a difference: a one in the token's column of `lora_embedding_A` (or row of the head's B), and the difference
on the other side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from loradeck_registry.bases.shapes import BaseShapes
from loradeck_registry.transfer.lora_pairs import Matrix, Pairs


def with_rows(pairs: Pairs, ids: Sequence[int], differences: tuple[Matrix, Matrix], base: BaseShapes) -> Pairs:
    """The pairs with the rows of `ids` moved by `differences` [ids, hidden] of embedding and head; both get a rank of
    their own, which is higher by one for each token."""
    result = dict(pairs)
    ones = np.zeros((base.rows, len(ids)), np.float32)
    ones[list(ids), range(len(ids))] = 1
    nothing = np.zeros((0, base.hidden), np.float32), np.zeros((base.rows, 0), np.float32)
    for module, difference in zip(base.whole, differences, strict=True):
        a, b = pairs.get(module, nothing)
        low = np.zeros((base.rows, b.shape[1]), np.float32)
        low[: len(b)] = b
        result[module] = np.concatenate([a, difference]), np.concatenate([low, ones], axis=1)
    return result


def rank_settings(pairs: Pairs, config: dict[str, Any], base: BaseShapes) -> dict[str, Any]:
    """PEFT's configuration for these pairs, where the ranks of embedding and head differ from the layers'."""
    leaves = {module.rpartition(".")[2]: len(pairs[module][0]) for module in base.whole}
    return config | {
        # PEFT takes no rank of 0; with new rows alone every rank is in the pattern.
        "r": config["r"] or max(leaves.values()),
        "lora_alpha": config["lora_alpha"] or max(leaves.values()),
        "rank_pattern": leaves,
        "alpha_pattern": leaves,
        "target_modules": sorted({*config["target_modules"], *leaves}),
    }
