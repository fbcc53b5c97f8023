"""Making a delta: a weight file against local copies of files that the registry stores whole."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loradeck_registry.delta.parallel import ordered
from loradeck_registry.delta.planes import NUMBERS, PIECE, PLAIN, Bytes, encode
from loradeck_registry.delta.record import DeltaRecord, Segment, Stored
from loradeck_registry.manifest import File
from loradeck_registry.weights import Tensor, Weights

WINS = 0.9
"""A delta is kept where it has at most this share of the file's bytes: a smaller gain is not worth a slower read."""
_TRIAL = 8
"""Pieces that are coded to see whether more are worth it."""


@dataclass(frozen=True)
class Source:
    """A local copy of a file that the registry stores whole."""

    file: File
    path: Path


def make_delta(target: Path, file: File, sources: Sequence[Source], body: Path) -> DeltaRecord | None:
    """Write the delta of the safetensors file `target` to the file `body`; None, and no `body`, where it does not win.

    Tensors are matched by name and type; of one with more or fewer rows than its source the common bytes. Memory use
    is bounded. Raises InvalidError if a file is not safetensors.
    """
    weights = Weights(target)
    segments, used = _plan(weights, sources)
    if not used:
        return None
    views = [_bytes(Weights(source.path)) for source in used]
    if _estimate(_bytes(weights), segments, views) > WINS:
        return None
    digest = hashlib.sha256()
    size = 0
    with body.open("wb") as out:
        for coded in _pieces(_bytes(weights), segments, views):
            out.write(coded)
            digest.update(coded)
            size += len(coded)
            if size > WINS * file.size:
                break
    if size > WINS * file.size:
        body.unlink()
        return None
    return DeltaRecord(
        file=Stored(sha256=file.sha256, size=file.size),
        body=Stored(sha256=digest.hexdigest(), size=size),
        sources=tuple(Stored(sha256=source.file.sha256, size=source.file.size) for source in used),
        segments=tuple(segments),
    )


def _plan(weights: Weights, sources: Sequence[Source]) -> tuple[list[Segment], list[Source]]:
    """The file's segments in order, and the sources that they need."""
    known = _tensors(sources)
    used: dict[int, int] = {}
    segments: list[Segment] = []
    position = 0
    for name, tensor in sorted(weights.tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin == tensor.end or name not in known or known[name][1].dtype != tensor.dtype:
            continue
        number, theirs = known[name]
        length = min(tensor.end - tensor.begin, theirs.end - theirs.begin)
        if position < tensor.begin:
            segments.append(Segment(length=tensor.begin - position))
        place = used.setdefault(number, len(used))
        kind = tensor.dtype if tensor.dtype in NUMBERS else None
        segments.append(Segment(length=length, type=kind, source=place, offset=theirs.begin))  # type: ignore[arg-type]
        position = tensor.begin + length
    total = len(_bytes(weights))
    if position < total:
        segments.append(Segment(length=total - position))
    return segments, [sources[number] for number in used]


def _tensors(sources: Sequence[Source]) -> Mapping[str, tuple[int, Tensor]]:
    found: dict[str, tuple[int, Tensor]] = {}
    for number, source in enumerate(sources):
        for name, tensor in Weights(source.path).tensors.items():
            found.setdefault(name, (number, tensor))
    return found


def _estimate(target: Bytes, segments: Sequence[Segment], views: Sequence[Bytes]) -> float:
    """The share of bytes that a few pieces spread over the file keep."""
    pieces = list(_places(segments))
    chosen = pieces[:: max(len(pieces) // _TRIAL, 1)]
    coded = sum(len(_code(target, place, views)) for place in chosen)
    return coded / sum(length for _, _, length, _ in chosen)


def _pieces(target: Bytes, segments: Sequence[Segment], views: Sequence[Bytes]) -> Iterator[bytes]:
    yield from ordered(lambda place: _code(target, place, views), _places(segments))


_Place = tuple[Segment, int, int, int]
"""Segment, and of one of its pieces: place in the file, length, place in the source."""


def _places(segments: Sequence[Segment]) -> Iterator[_Place]:
    position = 0
    for segment in segments:
        for begin in range(0, segment.length, PIECE):
            length = min(PIECE, segment.length - begin)
            yield segment, position + begin, length, segment.offset + begin
        position += segment.length


def _code(target: Bytes, place: _Place, views: Sequence[Bytes]) -> bytes:
    segment, begin, length, offset = place
    source = None if segment.source is None else views[segment.source][offset : offset + length]
    return encode(target[begin : begin + length], source, NUMBERS[segment.type] if segment.type else PLAIN)


def _bytes(weights: Weights) -> Bytes:
    return np.frombuffer(weights.mapped, np.uint8)
