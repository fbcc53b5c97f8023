"""The coding of one piece of a tensor: the difference to its source, split into byte planes, each compressed by itself.

A fine-tuned weight lies near the one it began as. The difference of the two bit patterns as integers, zigzag-folded
so that small ones of either sign have zero high bytes, therefore compresses where the weights themselves do not. How
large it is in units of the last place depends on the weight's exponent: the elements are ordered by the exponent of
the source, which the reader has too, so that each block that zstd looks at is of one kind.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from loradeck_registry.errors import DamagedError

PIECE = 4 << 20
"""Bytes of a file that are coded at a time; memory use is a small multiple of it."""
_LEVEL = 1
_RAW, _ZSTD, _ZERO = 0, 1, 2
_HEAD = 5
"""Bytes before each plane: how it is stored, and how many bytes follow."""

Bytes = NDArray[np.uint8]
Words = NDArray[Any]


@dataclass(frozen=True)
class Number:
    """How a tensor's elements look as integers: bytes each, and where the exponent lies."""

    size: int
    shift: int = 0
    mask: int = 0

    @property
    def type(self) -> np.dtype[np.unsignedinteger]:
        """Unsigned, little endian."""
        return np.dtype(f"<u{self.size}")


NUMBERS = {
    "BF16": Number(2, 7, 0xFF),
    "F16": Number(2, 10, 0x1F),
    "F32": Number(4, 23, 0xFF),
}
"""Types that are worth a difference, by their name in safetensors."""
PLAIN = Number(1)
"""Bytes that are no numbers."""


def encode(target: Bytes, source: Bytes | None, number: Number) -> bytes:
    """Code the bytes `target`, whole elements of type `number`, against as many bytes of `source` (None: zeros)."""
    if source is not None and np.array_equal(target, source):
        return bytes([_ZERO, 0, 0, 0, 0]) * number.size
    words: Words = target.view(number.type)
    if source is not None:
        base: Words = source.view(number.type)
        words = _fold(words - base, number)[_order(base, number)]
    planes = np.ascontiguousarray(np.ascontiguousarray(words).view(np.uint8).reshape(-1, number.size).T)
    # An instance is not to be used by several threads at once.
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    return b"".join(_plane(plane, compressor) for plane in planes)


def decode(coded: bytes, length: int, source: Bytes | None, number: Number) -> bytes:
    """The `length` bytes that `encode` was given. Raises DamagedError."""
    view = memoryview(coded)
    planes = np.empty((number.size, length // number.size), np.uint8)
    position = 0
    zeros = 0
    for plane in planes:
        kind, size = view[position], int.from_bytes(view[position + 1 : position + _HEAD], "little")
        content = view[position + _HEAD : position + _HEAD + size]
        position += _HEAD + size
        zeros += kind == _ZERO
        plane[:] = _unplane(kind, content, len(plane))
    if zeros == number.size and source is not None:
        return source.tobytes()
    words: Words = np.ascontiguousarray(planes.T).reshape(-1).view(number.type)
    if source is not None:
        base: Words = source.view(number.type)
        ordered = np.empty_like(words)
        ordered[_order(base, number)] = words
        words = _unfold(ordered, number) + base
    return words.tobytes()


def coded_size(coded: memoryview, number: Number) -> int | None:
    """Bytes of the coded piece that `coded` begins with, None if its planes' heads are not all there yet."""
    position = 0
    for _ in range(number.size):
        if position + _HEAD > len(coded):
            return None
        position += _HEAD + int.from_bytes(coded[position + 1 : position + _HEAD], "little")
    return position


def _order(base: Words, number: Number) -> NDArray[np.intp]:
    exponents = ((base >> number.shift) & number.mask).astype(np.uint8)
    return np.argsort(exponents, kind="stable")


def _fold(difference: Words, number: Number) -> Words:
    signs = -(difference >> (8 * number.size - 1)).astype(number.type)
    return (difference << 1) ^ signs


def _unfold(folded: Words, number: Number) -> Words:
    return (folded >> 1) ^ -(folded & 1).astype(number.type)


def _plane(plane: Bytes, compressor: zstandard.ZstdCompressor) -> bytes:
    if not plane.any():
        return bytes([_ZERO, 0, 0, 0, 0])
    raw = plane.tobytes()
    packed = compressor.compress(raw)
    kind, content = (_ZSTD, packed) if len(packed) < len(raw) else (_RAW, raw)
    return bytes([kind]) + len(content).to_bytes(4, "little") + content


def _unplane(kind: int, content: memoryview, length: int) -> Bytes:
    if kind == _ZERO:
        return np.zeros(length, np.uint8)
    if kind == _ZSTD:
        try:
            # The size is looked at first: memory is never taken on a damaged frame's word.
            if zstandard.frame_content_size(content) != length:
                raise DamagedError("a compressed part of a delta has the wrong size")
            content = memoryview(zstandard.ZstdDecompressor().decompress(content))
        except zstandard.ZstdError as error:
            raise DamagedError(f"a compressed part of a delta cannot be read: {error}") from error
    if kind not in (_RAW, _ZSTD) or len(content) != length:
        raise DamagedError("a part of a delta is damaged")
    return np.frombuffer(content, np.uint8)
