"""What the small records of a registry must hold to be read. Whoever may write to the store may write anything."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from loradeck_registry.manifest import Digest


def _time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


Time = Annotated[str, AfterValidator(_time)]
"""ISO 8601 with a zone."""
Number = Annotated[int, Field(ge=1, lt=2**53)]
"""Of a revision or a log's entry."""


class Record(BaseModel):
    """Fields that are not named may be there: newer writers add some. Nothing is converted."""

    model_config = ConfigDict(extra="allow", strict=True)


class RevisionRecord(Record):
    """Of `revisions/`."""

    digest: Digest
    kind: str = ""
    author: str | None = None
    reason: str | None = None
    create_time: Time | None = None


class _Target(Record):
    revision: Number
    digest: Digest
    weight: float = Field(gt=0, le=1.000001)


class AliasRecord(Record):
    """Of `aliases/`."""

    targets: list[_Target] = Field(min_length=1, max_length=1000)
    who: str
    when: Time
    why: str
    restores: Number | None = None


class AttachmentRecord(Record):
    """Of `attachments/`."""

    who: str
    when: Time
    content: dict[str, Any]


class TagRecord(AttachmentRecord):
    """Of `attachments/<digest>/tag/`."""

    class _Tag(Record):
        tag: str
        removed: bool = False

    content: _Tag  # type: ignore[assignment]


class EvaluationRecord(AttachmentRecord):
    """Of `attachments/<digest>/evaluation/`."""

    class _Evaluation(Record):
        metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]]

    content: _Evaluation  # type: ignore[assignment]


class ProtectionRecord(Record):
    """Of `protections/`."""

    rules: list[str]


class LeaseRecord(Record):
    """Of `leases/`."""

    holder: str
    manifests: list[str]
    blobs: list[str]
    expires: Time


class DeletingRecord(Record):
    """Of `quarantine/`: what a collection is deleting."""

    keys: list[str]
    expires: Time


class IntentRecord(Record):
    """Of `moves/`: what is meant."""

    name: str
    alias: str
    revision: Number
    digest: Digest
    who: str
    seconds: float = Field(gt=0, le=86400)
    begin: Time


class VoteRecord(Record):
    """Of `moves/`: a server's answer."""

    answer: str = Field(pattern="^(ready|refused|elsewhere)$")
    seconds: float
    reason: str
    message: str


class OutcomeRecord(Record):
    """Of `moves/`: how it ended."""

    moved: bool


class MemberRecord(Record):
    """Of `servers/`."""

    base: str
    since: Time
    ttl: float = Field(gt=0, le=86400)
    expires: Time
