"""Small revisions for registry tests: real files, no model behind them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import obstore
from safetensors.numpy import save_file

from loradeck_registry.files import describe, folder_files
from loradeck_registry.manifest import BaseIdentity, Lora, Manifest
from loradeck_registry.registry import Registry, Revision
from loradeck_registry.weights import to_bfloat16, write_weights

BASE = BaseIdentity(
    reference="hub:org/base", digest=f"sha256:{'a' * 64}", compatibility=f"sha256:{'b' * 64}", vocabulary=100, rows=128
)


def make_files(folder: Path, seed: int = 0) -> dict[str, Path]:
    """An adapter-like folder whose weights depend on `seed`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    values = np.random.default_rng(seed).standard_normal((4, 8)).astype(np.float32)
    save_file({"weight": values}, folder / "adapter_model.safetensors")
    return folder_files(folder)


def make_manifest(files: dict[str, Path], **changes: Any) -> Manifest:
    """A manifest of `files`, of kind adapter unless `changes` say otherwise."""
    fields: dict[str, Any] = {
        "kind": "adapter",
        "base": BASE,
        "lora": Lora(rank=4, alpha=4, target_modules=("q_proj",), dtype="float32"),
        "files": describe(files),
        "create_time": datetime.now(UTC),
    }
    return Manifest(**(fields | changes))


def push(registry: Registry, folder: Path, name: str = "clf", seed: int = 0, **settings: Any) -> Revision:
    """Push a small revision made in `folder`."""
    files = make_files(folder, seed)
    return registry.push(name, make_manifest(files), files, **settings)


def objects(registry: Registry) -> list[str]:
    """The key of every object."""
    return sorted(item["path"] for batch in obstore.list(registry._store._store) for item in batch)


def content(registry: Registry, key: str) -> bytes:
    """An object's bytes, past every check."""
    return bytes(obstore.get(registry._store._store, key).bytes())


def overwrite(registry: Registry, key: str, value: bytes) -> None:
    """Put bytes under a key, past every check."""
    obstore.put(registry._store._store, key, value)


def remove(registry: Registry, key: str) -> None:
    """Lose an object."""
    obstore.delete(registry._store._store, key)


def flip(registry: Registry, key: str) -> None:
    """Turn one bit of an object's last byte."""
    value = bytearray(content(registry, key))
    value[-1] ^= 1
    overwrite(registry, key, bytes(value))


def make_checkpoint(folder: Path, seed: int = 0, *, kept: int = 2, rows: int = 300) -> dict[str, Path]:
    """A bfloat16 checkpoint of six matrices near those of seed 0; the first `kept` of them are the same.

    `rows` are those of its embedding, of which the first 300 follow the others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(f'{{"seed": {seed}}}')
    start = np.random.default_rng(0)
    shift = np.random.default_rng(seed)
    arrays = {}
    for number in range(6):
        values = start.standard_normal((300, 64)).astype(np.float32) * 0.02
        if seed and number >= kept:
            values += shift.standard_normal(values.shape).astype(np.float32) * 1e-5
        arrays[f"layer.{number}.weight"] = to_bfloat16(values)
    if rows != 300:
        more = shift.standard_normal((rows - 300, 64)).astype(np.float32)
        arrays["layer.5.weight"] = np.concatenate([arrays["layer.5.weight"], to_bfloat16(more)])
    write_weights(folder / "model.safetensors", arrays, bfloat16=True)
    return folder_files(folder)


def push_base(registry: Registry, folder: Path, name: str = "base") -> Revision:
    """Push the checkpoint of seed 0 as a base."""
    files = make_checkpoint(folder)
    return registry.push(name, make_manifest(files, kind="base", lora=None), files)


def push_full(registry: Registry, folder: Path, seed: int, name: str = "full", base: str = "base@1") -> Revision:
    """Push a checkpoint whose base is named `base`."""
    files = make_checkpoint(folder, seed)
    identity = BASE.model_copy(update={"reference": base})
    return registry.push(name, make_manifest(files, kind="full", lora=None, base=identity), files)
