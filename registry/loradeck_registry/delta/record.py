"""The record of a delta: which file it stands for, what it is made from, and how its parts lie."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from loradeck_registry import layout
from loradeck_registry.errors import DamagedError
from loradeck_registry.stores.store import Store

_Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stored(_Strict):
    """A blob stored whole."""

    sha256: _Hex
    size: int = Field(ge=0, description="bytes")


class Segment(_Strict):
    """The next `length` bytes of the file: coded by themselves, or against a source from its byte `offset` on."""

    length: int = Field(ge=1)
    type: Literal["BF16", "F16", "F32"] | None = Field(default=None, description="of elements; None: plain bytes")
    source: int | None = Field(default=None, ge=0, description="position in `sources`")
    offset: int = Field(default=0, ge=0)


class DeltaRecord(_Strict):
    """A file that is stored as its difference to others. Its body, a blob too, holds the coded pieces in order."""

    format: Literal[1] = 1
    file: Stored
    body: Stored
    sources: tuple[Stored, ...] = Field(min_length=1)
    segments: tuple[Segment, ...] = Field(min_length=1)

    @property
    def blobs(self) -> set[str]:
        """Hex digests of the blobs without which the file cannot be read."""
        return {self.body.sha256} | {source.sha256 for source in self.sources}


def parse_record(content: bytes, key: str) -> DeltaRecord:
    """The record in `content`. Raises DamagedError naming `key`."""
    try:
        record = DeltaRecord.model_validate_json(content)
        whole = sum(segment.length for segment in record.segments) == record.file.size
        known = all(s.source is None or s.source < len(record.sources) for s in record.segments)
    except ValidationError:
        whole = known = False
    if not (whole and known) or not key.endswith(record.file.sha256):
        raise DamagedError(
            f"the delta record {key} is damaged: restore it from a copy of the registry, or delete it and push the "
            "same files again",
            metadata={"object": key},
        )
    return record


def read_record(store: Store, sha256: str) -> DeltaRecord:
    """The record of the file with this digest. Raises NotFoundError, DamagedError."""
    key = layout.delta(sha256)
    return parse_record(store.get(key), key)


def is_whole(store: Store, record: DeltaRecord) -> bool:
    """Whether all that the file is made from is there, by size."""
    return all(store.size(layout.blob(blob.sha256)) == blob.size for blob in (record.body, *record.sources))
