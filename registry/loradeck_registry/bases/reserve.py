"""Reserved rows: a copy of a base with zero rows behind its embedding and head, for adapters' new tokens."""

import json
import shutil
from pathlib import Path
from typing import BinaryIO

from loradeck_registry.bases.identity import EMBEDDING_SUFFIXES, HEAD_NAMES, read_config, read_vocabulary
from loradeck_registry.errors import PreconditionError
from loradeck_registry.weights import Weights, open_all

_INDEX = "model.safetensors.index.json"


def reserve_rows(files: dict[str, Path], folder: Path, count: int, destination: Path) -> dict[str, Path]:
    """Write what must change into `destination`, so that at least `count` rows follow the tokenizer's last token.

    `files` are the base's files by name, `folder` is where they lie. Returns the copy's files: the changed ones in
    `destination`, all others as they are. Every other byte of the weights, and so the base's compatibility, stays the
    same. Raises PreconditionError for a configuration without `vocab_size` at its top.
    """
    config = read_config(folder)
    tensors = open_all(folder)
    wide = [name for name in tensors if name.endswith(EMBEDDING_SUFFIXES) or name in HEAD_NAMES]
    rows = {tensors[name].tensors[name].shape[0] for name in wide}
    if not isinstance(config.get("vocab_size"), int) or rows != {config["vocab_size"]}:
        raise PreconditionError(
            f"{folder.name}: `vocab_size` in config.json is not the number of embedding rows: this architecture "
            "cannot get reserved rows yet",
            reason="RESERVE_UNSUPPORTED",
        )
    added = read_vocabulary(folder) + count - config["vocab_size"]
    if added <= 0:
        return dict(files)
    destination.mkdir(parents=True, exist_ok=True)
    changed = {"config.json": destination / "config.json"}
    config["vocab_size"] += added
    changed["config.json"].write_text(json.dumps(config, indent=2) + "\n")
    growth = 0
    for weights in {id(tensors[name]): tensors[name] for name in wide}.values():
        target = destination / weights.path.name
        growth += _write_grown(weights, [name for name in wide if tensors[name] is weights], added, target)
        changed[weights.path.name] = target
    if _INDEX in files:
        index = json.loads(files[_INDEX].read_bytes())
        if "total_size" in index.get("metadata", {}):
            index["metadata"]["total_size"] += growth
        changed[_INDEX] = destination / _INDEX
        changed[_INDEX].write_text(json.dumps(index, indent=2) + "\n")
    return files | changed


def _write_grown(weights: Weights, names: list[str], added: int, target: Path) -> int:
    """Copy a safetensors file with `added` zero rows behind each tensor in `names`; returns the bytes added."""
    header: dict[str, object] = {"__metadata__": dict(weights.metadata)} if weights.metadata else {}
    position = 0
    padding = {}
    ordered = sorted(weights.tensors, key=lambda name: (weights.tensors[name].begin, weights.tensors[name].end))
    for name in ordered:
        tensor = weights.tensors[name]
        shape = list(tensor.shape)
        length = tensor.end - tensor.begin
        if name in names:
            padding[name] = length // shape[0] * added
            shape[0] += added
        end = position + length + padding.get(name, 0)
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            with weights.raw(name) as content:
                file.write(content)
            _write_zeros(file, padding.get(name, 0))
    shutil.copymode(weights.path, target)
    return sum(padding.values())


def _write_zeros(file: BinaryIO, count: int) -> None:
    block = bytes(1 << 20)
    while count > 0:
        file.write(block[:count])
        count -= len(block)
