"""Random adapters of full effect for benchmarks of serving: real sizes and formats, no training."""

import json
import math
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loradeck_registry.bases.resolve import ResolvedBase
from loradeck_registry.bases.shapes import BaseShapes, read_shapes
from loradeck_registry.errors import PreconditionError
from loradeck_registry.publish import push_folder
from loradeck_registry.registry import Registry, Revision
from loradeck_tasks.defaults import default_task
from loradeck_tasks.task import Task

RANK = 8
ROW_SIZE = 0.05
"""Standard deviation of the rows of added tokens."""
SUFFIX = "_proj.weight"
"""Ending of the names of the linear layers that get an adapter."""
_NUMBERS = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def publish_random(
    registry: Registry, base: ResolvedBase, name: str, task: Task, *, seed: int, alias: str | None = None
) -> Revision:
    """Publish a random adapter of `task`, with rows for its added tokens. Two seeds give different answers.

    Raises PreconditionError if the base has no linear layers called `…_proj`.
    """
    with tempfile.TemporaryDirectory(prefix="loradeck-adapter-") as folder:
        write_random(base.folder, Path(folder), seed=seed)
        if task.added_tokens:
            write_random_rows(read_shapes(base.folder), Path(folder), [t.id for t in task.added_tokens], seed=seed)
        return push_folder(registry, name, Path(folder), base, task=task.model_dump(mode="json"), alias=alias)


def label_task(base: ResolvedBase, labels: int, **changes: object) -> Task:
    """A classification over so many labels, each with a token that the adapter adds."""
    tokens = [f"<label-{number}>" for number in range(labels)]
    first = base.identity.vocabulary
    return default_task(
        "classification",
        labels=[{"name": f"label {number}", "token": token} for number, token in enumerate(tokens)],
        added_tokens=[{"content": token, "id": first + number} for number, token in enumerate(tokens)],
        **changes,
    )


def write_random_rows(base: BaseShapes, folder: Path, ids: Sequence[int], *, seed: int) -> None:
    """Write random rows for the added tokens `ids` into `folder`, in the published format."""
    from safetensors.numpy import save_file

    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((len(ids), base.hidden), np.float32) * np.float32(ROW_SIZE)
    tensors = {"ids": np.asarray(ids, np.int64), "input_rows": rows, "output_rows": rows.copy()}
    save_file(tensors, folder / "new_tokens.safetensors")


def write_random(base: Path, folder: Path, *, seed: int, rank: int = RANK, strength: float = 1.0) -> None:
    """Write a LoRA of `rank` on every linear layer of `base` into `folder`, in the published format.

    Each product of two matrices is scaled to `strength` times the size of the weights that it changes, so that greedy
    answers of two seeds part within a few tokens.
    """
    from safetensors.numpy import save_file

    generator = np.random.default_rng(seed)
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for name, weight in _linear_layers(base):
        rows, columns = weight.shape
        module = f"base_model.model.{name.removesuffix('.weight')}"
        size = strength * float(weight.std()) / math.sqrt(rank)
        tensors[f"{module}.lora_A.weight"] = generator.standard_normal((rank, columns), np.float32)
        tensors[f"{module}.lora_B.weight"] = generator.standard_normal((rows, rank), np.float32) * np.float32(size)
    if not tensors:
        raise PreconditionError(
            f"{base.name} has no linear layers called …_proj: this benchmark cannot make adapters for it", field="base"
        )
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _linear_layers(base: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Names and values of the matrices that end in SUFFIX. Read by hand, since NumPy has no bfloat16."""
    for file in sorted(base.glob("*.safetensors")):
        with file.open("rb") as stored:
            (length,) = struct.unpack("<Q", stored.read(8))
            header: Mapping[str, Any] = json.loads(stored.read(length))
            for name, entry in sorted(header.items()):
                if not name.endswith(SUFFIX) or entry["dtype"] not in _NUMBERS:
                    continue
                start, end = entry["data_offsets"]
                stored.seek(8 + length + start)
                values = np.frombuffer(stored.read(end - start), _NUMBERS[entry["dtype"]])
                if entry["dtype"] == "BF16":
                    # The upper half of a float32.
                    values = (values.astype(np.uint32) << 16).view(np.float32)
                yield name, values.astype(np.float32).reshape(entry["shape"])
