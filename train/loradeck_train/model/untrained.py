"""Control tokens that a base never learned: a chat format that uses them does not work, however long one trains LoRA.

A base model's tokenizer brings the chat tokens of its instruct sibling, whose rows the base left as they were at the
start. An end of turn among them is never told from the other rows, so answers do not stop.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from loradeck_registry.bases.identity import EMBEDDING_SUFFIXES
from loradeck_registry.weights import open_all

_SMALL = 0.25
"""A row shorter than this share of the usual length was hardly ever moved."""
_SAMPLE = 1024


def untrained_tokens(folder: Path, vocabulary: int, ids: Iterable[int]) -> list[int]:
    """Those of `ids` (below `vocabulary`) whose row of the embedding in `folder` shows no training, ascending.

    Such a row is much shorter than rows are as a rule, or the same as another row of the sample. Reads only the rows
    that it looks at.
    """
    asked = sorted({i for i in ids if i < vocabulary})
    if not asked:
        return []
    name, weights = next((n, w) for n, w in open_all(folder).items() if n.endswith(EMBEDDING_SUFFIXES))
    with safe_open(str(weights.path), "pt") as file:
        matrix = file.get_slice(name)
        step = max(1, vocabulary // _SAMPLE)
        sample = [_row(matrix, i) for i in range(0, vocabulary, step) if i not in asked]
        rows = {i: _row(matrix, i) for i in asked}
    usual = float(np.median([np.linalg.norm(row) for row in sample]))
    found = []
    for i, row in rows.items():
        twins = [*sample, *(other for j, other in rows.items() if j != i)]
        if np.linalg.norm(row) < _SMALL * usual or any(np.array_equal(row, twin) for twin in twins):
            found.append(i)
    return found


def untrained_sentence(folder: Path, vocabulary: int, tokenizer: Any, prompts: Iterable[Iterable[int]]) -> str | None:
    """What to tell the user if the rendered examples use control tokens that the base never learned."""
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(
        tokenizer.all_special_ids
    )
    used = {i for ids in prompts for i in ids if i in control}
    found = untrained_tokens(folder, vocabulary, used)
    if not found:
        return None
    names = ", ".join(tokenizer.convert_ids_to_tokens(i) for i in found)
    return (
        f"the base never learned {names}, which the examples use: an adapter does not change these rows, so answers "
        "may not stop there; train on the instruct base, or with task.format plain"
    )


def _row(matrix: Any, index: int) -> Any:
    return matrix[index : index + 1].float().numpy()[0]
