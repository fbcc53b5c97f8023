"""Safetensors files without a framework: headers, raw bytes and numpy views. Nothing is executed or unpickled."""

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loradeck_registry.errors import InvalidError

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "BF16": "<u2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class Tensor:
    """One tensor's place: bytes `begin` to `end` of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Weights:
    """One safetensors file, mapped read-only; views stay valid while the object lives."""

    def __init__(self, path: Path) -> None:
        """Read and check the header. Raises InvalidError (NOT_SAFETENSORS or TRUNCATED)."""
        self.path = path
        with path.open("rb") as file:
            total = file.seek(0, 2)
            file.seek(0)
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > _MAX_HEADER:
                raise _not_safetensors(path)
            header = file.read(length)
            if len(header) < length:
                raise _truncated(path)
            self.tensors, self.metadata = _parse(path, header, 8 + length, total)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @property
    def mapped(self) -> mmap.mmap:
        """The whole file, read-only."""
        return self._map

    def raw(self, name: str) -> memoryview:
        """The tensor's bytes, without a copy."""
        tensor = self.tensors[name]
        return memoryview(self._map)[tensor.begin : tensor.end]

    def array(self, name: str) -> NDArray[Any]:
        """The tensor as stored, without a copy; bfloat16 as its uint16 bit patterns."""
        tensor = self.tensors[name]
        if tensor.dtype not in _NUMPY:
            raise InvalidError(
                f"{self.path.name}: tensor {name} has the unsupported type {tensor.dtype}", reason="DTYPE"
            )
        return np.frombuffer(self.raw(name), dtype=_NUMPY[tensor.dtype]).reshape(tensor.shape)

    def float32(self, name: str) -> NDArray[np.float32]:
        """A copy of a floating-point tensor in float32."""
        array = self.array(name)
        if self.tensors[name].dtype == "BF16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.astype(np.float32)

    def finite(self, name: str) -> bool:
        """Whether a floating-point tensor has no NaN and no infinity."""
        array = self.array(name)
        if self.tensors[name].dtype == "BF16":
            return not bool(np.any((array & 0x7F80) == 0x7F80))
        return bool(np.isfinite(array).all())


def write_weights(path: Path, arrays: Mapping[str, NDArray[Any]], *, bfloat16: bool = False) -> None:
    """Write a safetensors file. With `bfloat16`, uint16 arrays are bfloat16 bit patterns."""
    kinds = {np.dtype(code): name for name, code in _NUMPY.items() if name != "BF16"}
    if bfloat16:
        kinds[np.dtype("<u2")] = "BF16"
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    # Widest items first, as the format's own writer does, so that every tensor is aligned.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    for name, array in ordered:
        end = position + array.nbytes
        header[name] = {"dtype": kinds[array.dtype], "shape": list(array.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).tobytes())


def to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bit patterns of finite values in bfloat16, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sorted by name. Raises InvalidError if there is none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InvalidError(
            f"{folder} has no .safetensors file: only safetensors weights are taken, never pickles",
            reason="NOT_SAFETENSORS",
        )
    return files


def open_all(folder: Path) -> dict[str, Weights]:
    """Tensor name to the file that holds it, for all of a folder. Raises InvalidError, also for a tensor held twice."""
    found: dict[str, Weights] = {}
    for path in weight_files(folder):
        weights = Weights(path)
        for name in weights.tensors:
            if name in found:
                raise InvalidError(f"{folder}: tensor {name} is in {found[name].path.name} and in {path.name}")
            found[name] = weights
    return found


def check_no_empty_tensor(weights: Weights) -> None:
    """Raise InvalidError (EMPTY_TENSOR) if the file has no tensor or one without elements, as a lost shard leaves."""
    if not weights.tensors:
        raise InvalidError(f"{weights.path.name} holds no tensor: it was saved wrongly", reason="EMPTY_TENSOR")
    for name, tensor in weights.tensors.items():
        if tensor.size == 0:
            raise InvalidError(
                f"{weights.path.name}: tensor {name} is empty (shape {list(tensor.shape)}): it was saved wrongly, as "
                "ZeRO-3 does without gathering; save the adapter again",
                reason="EMPTY_TENSOR",
            )


def _parse(path: Path, header: bytes, start: int, total: int) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        content = json.loads(header)
        metadata = content.pop("__metadata__", {})
        entries: list[tuple[int, int, str, str, tuple[int, ...]]] = []
        for name, entry in content.items():
            begin, end = map(int, entry["data_offsets"])
            entries.append((begin, end, name, str(entry["dtype"]), tuple(map(int, entry["shape"]))))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise _not_safetensors(path) from None
    tensors = {}
    position = 0
    for begin, end, name, dtype, shape in sorted(entries):
        if dtype not in _ITEM_BYTES:
            raise InvalidError(f"{path.name}: tensor {name} has the unknown type {dtype[:20]}", reason="DTYPE")
        if begin != position or min(shape, default=0) < 0 or end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
            raise _not_safetensors(path)
        position = end
        tensors[name] = Tensor(dtype, shape, start + begin, start + end)
    if start + position > total:
        raise _truncated(path)
    if start + position != total:
        raise _not_safetensors(path)
    return tensors, metadata


def _not_safetensors(path: Path) -> InvalidError:
    return InvalidError(f"{path.name} is not a safetensors file", reason="NOT_SAFETENSORS", field="files")


def _truncated(path: Path) -> InvalidError:
    return InvalidError(
        f"{path.name} is truncated: its end is missing; copy it again", reason="TRUNCATED", field="files"
    )
