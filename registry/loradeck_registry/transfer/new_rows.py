"""New tokens' rows, found in a PEFT folder: as trainable tokens, or inside whole embedding and head matrices."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loradeck_registry.bases.identity import EMBEDDING_SUFFIXES, HEAD_NAMES
from loradeck_registry.bases.shapes import BaseShapes
from loradeck_registry.transfer.lora_pairs import refuse
from loradeck_registry.weights import Weights, open_all

Rows = NDArray[np.float32]
_DELTA = ".token_adapter.trainable_tokens_delta"
_COPY = ".original_module.weight"
_ENDINGS = (_DELTA, ".modules_to_save.weight", ".base_layer.weight", _COPY, ".weight")
"""How names of trained rows end; the first that is there counts, the untrained copy never."""


@dataclass
class NewRows:
    """Tokens (content by id) and their rows, in the order of ids."""

    tokens: dict[int, str] = field(default_factory=dict)
    inputs: Rows = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    outputs: Rows = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    findings: list[str] = field(default_factory=list)


def take_new_rows(
    source: Path,
    weights: Weights,
    names: list[str],
    config: Mapping[str, Any],
    base_folder: Path,
    base: BaseShapes,
    *,
    whole: bool = False,
) -> NewRows:
    """The rows of tokens past the base's vocabulary, from the tensors `names`, which hold no LoRA.

    `whole`: the adapter has LoRA on embedding or head. Its new tokens then need no rows of their own: what the base
    holds in their place is what the LoRA changes. The base's own rows in a whole matrix must be the base's: trained
    ones have no exact form. Raises PreconditionError (NEW_TOKENS, LEFTOVER_TENSOR, NOT_FINITE).
    """
    result = NewRows()
    sides = _sides(names)
    if not sides:
        return _unchanged_rows(source, base_folder, base) if whole else result
    found = {side: _rows(weights, name, side, config, base_folder, base) for side, name in sides.items()}
    contents = _token_contents(source)
    ids = sorted(set().union(*found.values()))
    unnamed = [number for number in ids if number not in contents]
    if unnamed:
        result.findings.append(f"{len(unnamed)} rows without a token in the adapter's tokenizer left out")
    result.tokens = {number: contents[number] for number in ids if number in contents}
    if not result.tokens:
        return result
    if "input" not in found:
        raise refuse("NEW_TOKENS", "it has rows of the head for new tokens, but none of the embedding")
    missing = [number for number in result.tokens if number not in found["input"]]
    if missing:
        raise refuse("NEW_TOKENS", f"token {missing[0]} has no row of the embedding")
    result.inputs = np.stack([found["input"][number] for number in result.tokens])
    outputs = found.get("output") or (found["input"] if base.tied else _base_rows(base_folder, base, result.tokens))
    if any(number not in outputs for number in result.tokens):
        raise refuse("NEW_TOKENS", "embedding and head hold rows of different tokens")
    result.outputs = np.stack([outputs[number] for number in result.tokens])
    result.findings.append(f"{len(result.tokens)} new tokens' rows taken: {', '.join(result.tokens.values())}")
    return result


def _unchanged_rows(source: Path, base_folder: Path, base: BaseShapes) -> NewRows:
    """The rows that the base has for the tokens that the adapter's tokenizer adds."""
    tokens = {i: text for i, text in sorted(_token_contents(source).items()) if base.vocabulary <= i < base.rows}
    if not tokens:
        return NewRows()
    inputs, outputs = (own_matrix(base_folder, side, base, base.rows)[list(tokens)] for side in ("input", "output"))
    return NewRows(tokens, inputs, outputs, [f"{len(tokens)} new tokens start from the base's rows"])


def _sides(names: list[str]) -> dict[str, str]:
    """The tensor that counts for the embedding and for the head."""
    sides: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (_ENDINGS.index(_ending(name)), name)):
        stem = name.removesuffix(_ending(name)).removeprefix("base_model.model.")
        side = "output" if f"{stem}.weight" in HEAD_NAMES else "input"
        if side == "input" and not f"{stem}.weight".endswith(EMBEDDING_SUFFIXES):
            raise refuse("LEFTOVER_TENSOR", f"tensor {name} is a trained part that is neither LoRA nor new tokens")
        if not name.endswith(_COPY):
            sides.setdefault(side, name)
    return sides


def _ending(name: str) -> str:
    for ending in _ENDINGS:
        if name.endswith(ending):
            return ending
    raise refuse("LEFTOVER_TENSOR", f"tensor {name} is neither LoRA nor new tokens")


def _rows(
    weights: Weights, name: str, side: str, config: Mapping[str, Any], base_folder: Path, base: BaseShapes
) -> dict[int, Rows]:
    if not weights.finite(name):
        raise refuse("NOT_FINITE", f"tensor {name} holds NaN or infinity")
    rows = weights.float32(name)
    if rows.ndim != 2 or rows.shape[1] != base.hidden:
        raise refuse("NEW_TOKENS", f"tensor {name} has shape {list(rows.shape)}, not rows of {base.hidden}")
    if name.endswith(_DELTA):
        ids = _trainable_ids(config, name)
        if len(ids) != rows.shape[0] or min(ids) < base.vocabulary:
            raise refuse("NEW_TOKENS", "it trains tokens of the base itself, which only a full checkpoint can hold")
        return dict(zip(ids, rows, strict=True))
    own = own_matrix(base_folder, side, base, base.vocabulary)
    if rows.shape[0] < base.vocabulary or not np.array_equal(rows[: base.vocabulary], own):
        raise refuse("NEW_TOKENS", f"{name} changes the base's own rows, which only a full checkpoint can hold")
    return {number: rows[number] for number in range(base.vocabulary, rows.shape[0])}


def _trainable_ids(config: Mapping[str, Any], name: str) -> list[int]:
    stated = config.get("trainable_token_indices")
    if isinstance(stated, Mapping):
        stem = name.removesuffix(_DELTA)
        stated = next((ids for leaf, ids in stated.items() if stem.endswith(leaf)), None)
    if not isinstance(stated, list) or not stated:
        raise refuse("NEW_TOKENS", "`trainable_token_indices` does not say which tokens its rows are of")
    return [int(number) for number in stated]


def own_matrix(base_folder: Path, side: str, base: BaseShapes, count: int) -> Rows:
    """The base's first `count` rows of its embedding (`side` input) or head (`output`), float32."""
    tensors = open_all(base_folder)
    heads = [name for name in tensors if name in HEAD_NAMES]
    names = heads if side == "output" and heads and not base.tied else []
    names = names or [name for name in tensors if name.endswith(EMBEDDING_SUFFIXES)]
    return tensors[names[0]].float32(names[0])[:count]


def _base_rows(base_folder: Path, base: BaseShapes, ids: Mapping[int, str]) -> dict[int, Rows]:
    """The base's own head rows: what an untied adapter uses that trained the embedding only."""
    tensors = open_all(base_folder)
    head = next((name for name in tensors if name in HEAD_NAMES), None)
    if head is None or max(ids) >= base.rows:
        raise refuse("NEW_TOKENS", "it has no rows of the head for its new tokens, and neither has the base")
    rows = tensors[head].float32(head)
    return {number: rows[number] for number in ids}


def _token_contents(source: Path) -> dict[int, str]:
    """Added tokens by id, from the tokenizer files beside the adapter."""
    contents: dict[int, str] = {}
    for name in ("added_tokens.json", "tokenizer_config.json", "tokenizer.json"):
        path = source / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_bytes())
        except ValueError:
            raise refuse("NEW_TOKENS", f"{name} beside the adapter is not JSON") from None
        if name == "added_tokens.json":
            contents |= {int(number): str(text) for text, number in content.items()}
        elif name == "tokenizer.json":
            contents |= {int(entry["id"]): str(entry["content"]) for entry in content.get("added_tokens", ())}
        else:
            entries = content.get("added_tokens_decoder", {})
            contents |= {int(number): str(entry["content"]) for number, entry in entries.items()}
    return contents
