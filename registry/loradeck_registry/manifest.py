"""The manifest: everything known about a revision when it was published. Its digest is the revision's identity."""

import hashlib
import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""`sha256:` and 64 lower-case hex digits."""

FilePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")]
"""Path of a file inside a revision: relative, forward slashes, no hidden or parent parts."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """One file of a revision; its bytes are the blob of the same digest."""

    path: FilePath
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: int = Field(ge=0, description="bytes")


class BaseIdentity(_Strict):
    """Which base model an adapter or a full checkpoint belongs to, or what a base itself is."""

    reference: str = Field(description="how the base was named at training time, for people; never a local path")
    digest: Digest = Field(description="of all that the base is: configuration, weights, tokenizer")
    compatibility: Digest = Field(
        description="of the configuration without the vocabulary size and of the weights with the embeddings cut to "
        "`vocabulary` rows; equal for a base and its copy with reserved rows"
    )
    vocabulary: int = Field(ge=1, description="rows of the embedding that the tokenizer of the original uses")
    rows: int = Field(ge=1, description="rows of the embedding matrix, reserved ones included")


class Lora(_Strict):
    """PEFT settings of an adapter as published: one rank bound and one scale for all modules."""

    rank: int = Field(ge=0, description="largest rank of any module; 0 if the adapter is new rows only")
    alpha: float = Field(description="published with alpha = rank (scale 1): the trained scale is folded into B")
    target_modules: tuple[str, ...] = Field(description="leaf names of the modules that carry LoRA, sorted")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(description="precision of the stored tensors")


class Manifest(_Strict):
    """A revision. Equal content gives equal bytes and so an equal digest (`canonical_json`, `digest`)."""

    format: Literal[1] = 1
    kind: Literal["adapter", "full", "base"]
    base: BaseIdentity
    lora: Lora | None = Field(default=None, description="set exactly for kind adapter")
    files: tuple[File, ...] = Field(min_length=1, description="sorted by path, no path twice")
    task: dict[str, Any] | None = Field(default=None, description="a `loradeck_tasks.Task`, as JSON")
    provenance: dict[str, Any] = Field(
        default_factory=dict,
        description="what produced it: recipe, data, seed, packages, hardware, seconds, memory, tokens, loss history",
    )
    probe: dict[str, Any] | None = Field(default=None, description="a `loradeck_tasks.Probe`, as JSON")
    licence: str | None = Field(default=None, description="SPDX expression")
    author: str | None = None
    create_time: datetime

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "adapter") != (self.lora is not None):
            raise ValueError("`lora` is set for kind adapter and only there")
        paths = [f.path for f in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("`files` must be sorted by path, each path once")
        if len({p.lower() for p in paths}) != len(paths):
            raise ValueError("two paths in `files` differ only in case")
        return self

    def canonical_json(self) -> bytes:
        """UTF-8 JSON with sorted keys and no white space: what is stored, and what the digest is taken of."""
        payload = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    def digest(self) -> str:
        """`sha256:...` of `canonical_json`."""
        return digest_of(self.canonical_json())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


def digest_of(content: bytes) -> str:
    """`sha256:` and the hex digest of `content`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def is_digest(text: str) -> bool:
    """Whether `text` is a full digest."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None
