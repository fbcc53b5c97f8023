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
