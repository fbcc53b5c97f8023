"""Reading a delta: the file's bytes, piece by piece, from the body as it streams in and local copies of the sources."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from loradeck_registry.delta.parallel import ordered
from loradeck_registry.delta.planes import NUMBERS, PIECE, PLAIN, Bytes, Number, coded_size, decode
from loradeck_registry.delta.record import DeltaRecord
from loradeck_registry.errors import DamagedError


def read_delta(record: DeltaRecord, body: Iterable[bytes], sources: Sequence[Path]) -> Iterator[bytes]:
    """The file's bytes. `sources` are local copies of the record's, in its order. Memory use is bounded.

    What comes out is not verified here: whoever reads on compares the digest. Raises DamagedError for what cannot be
    decoded at all.
    """
    views = [_map(path, stored.size) for path, stored in zip(sources, record.sources, strict=True)]
    yield from ordered(lambda piece: decode(*piece), _coded(record, _Reader(body), views))


def _coded(
    record: DeltaRecord, reader: "_Reader", views: Sequence[Bytes]
) -> Iterator[tuple[bytes, int, Bytes | None, Number]]:
    """Each piece as it lies in the body, with its length, its source and its type of number."""
    for segment in record.segments:
        number = NUMBERS[segment.type] if segment.type else PLAIN
        for begin in range(0, segment.length, PIECE):
            length = min(PIECE, segment.length - begin)
            source = None
            if segment.source is not None:
                offset = segment.offset + begin
                source = views[segment.source][offset : offset + length]
                if len(source) != length:
                    raise DamagedError("a delta reaches beyond its source")
            yield reader.piece(length, number), length, source, number


class _Reader:
    """Takes coded pieces off a stream of chunks of any size."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._chunks = iter(body)
        self._held = b""

    def piece(self, length: int, number: Number) -> bytes:
        if length % number.size:
            raise DamagedError("a delta's segment does not end with an element")
        while True:
            size = coded_size(memoryview(self._held), number)
            if size is not None and size > 2 * length + 64 * number.size:
                raise DamagedError("a part of a delta is longer than what it stands for")
            if size is not None and size <= len(self._held):
                break
            chunk = next(self._chunks, None)
            if chunk is None:
                raise DamagedError("the body of a delta is cut short")
            self._held += chunk
        coded, self._held = self._held[:size], self._held[size:]
        return coded


def _map(path: Path, size: int) -> Bytes:
    if path.stat().st_size != size:
        raise DamagedError(f"the source {path.name} of a delta has the wrong size")
    return np.memmap(path, np.uint8, "r")
