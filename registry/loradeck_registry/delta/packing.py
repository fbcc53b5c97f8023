"""The deltas of one push: each file's is made once, read back, and compared, before anything of it is stored."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.delta.decoding import read_delta
from loradeck_registry.delta.encoding import Source, make_delta
from loradeck_registry.delta.record import DeltaRecord
from loradeck_registry.errors import PreconditionError
from loradeck_registry.manifest import File

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Packed:
    """A delta ready to be stored: its record, and the file with its body."""

    record: DeltaRecord
    body: Path


class Packer:
    """Makes deltas in the folder `scratch`. Safe for many threads; one file is coded at a time, on all cores."""

    def __init__(self, scratch: Path, sources: Callable[[], Sequence[Source]]) -> None:
        """`sources` is asked once, when the first file comes."""
        self._scratch = scratch
        self._ask = sources
        self._sources: Sequence[Source] | None = None
        self._guard = threading.Lock()
        self._made: dict[str, Packed | None] = {}

    def pack(self, file: File, path: Path) -> Packed | None:
        """The delta of the local file, None where it is better stored whole.

        Raises PreconditionError (FILE_CHANGED) if it does not read back as the file.
        """
        with self._guard:
            if file.sha256 not in self._made:
                self._made[file.sha256] = self._pack(file, path)
            return self._made[file.sha256]

    def _pack(self, file: File, path: Path) -> Packed | None:
        if not file.path.endswith(".safetensors"):
            return None
        if self._sources is None:
            self._sources = self._ask()
        body = self._scratch / file.sha256
        record = make_delta(path, file, self._sources, body)
        if record is None:
            return None
        places = {source.file.sha256: source.path for source in self._sources}
        digest = hashlib.sha256()
        with body.open("rb") as content:
            chunks = iter(lambda: content.read(_CHUNK), b"")
            for piece in read_delta(record, chunks, [places[source.sha256] for source in record.sources]):
                digest.update(piece)
        if digest.hexdigest() != file.sha256:
            raise PreconditionError(f"{path.name} changed while it was being read; push again", reason="FILE_CHANGED")
        return Packed(record, body)
