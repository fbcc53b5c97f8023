"""What the client takes and gives: plain frozen dataclasses."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Residency = Literal["", "hot", "warm", "cold", "remote"]
FinishReason = Literal["", "stop", "length", "scored"]
ScoringMethod = Literal["", "label_tokens", "text_sum", "text_mean"]
AdapterState = Literal["", "loading", "loaded", "cached", "draining", "failed"]


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of one request; None takes the task's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """Who answered. `revision` is 0 and `digest` empty for a base from a plain folder."""

    request_id: str
    adapter: str
    revision: int
    digest: str
    requested: str
    residency: Residency
    queue_seconds: float
    load_seconds: float


@dataclass(frozen=True)
class Usage:
    """Token counts as the server saw them."""

    prompt_tokens: int
    output_tokens: int
    cached_prompt_tokens: int


@dataclass(frozen=True)
class LabelProbability:
    """A label and how likely it is."""

    label: str
    probability: float


@dataclass(frozen=True)
class Classification:
    """The most probable label, and every candidate, most probable first."""

    label: str
    probabilities: tuple[LabelProbability, ...]
    method: ScoringMethod
    provenance: Provenance
    usage: Usage


@dataclass(frozen=True)
class Chunk:
    """A piece of text and the tokens behind it."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    text: str
    finish_reason: FinishReason
    provenance: Provenance
    usage: Usage


@dataclass(frozen=True)
class Adapter:
    """One adapter revision on one server."""

    name: str
    revision: int
    digest: str
    aliases: tuple[str, ...]
    task: str
    rank: int
    size_bytes: int
    state: AdapterState
    pinned: bool
    running_requests: int
    error_reason: str
    load_seconds: float = 0.0
    load_time: datetime | None = field(default=None)
    last_use_time: datetime | None = field(default=None)


@dataclass(frozen=True)
class AliasFlip:
    """An alias that began to mean another revision on the watched server; `previous_revision` is 0 if it was new."""

    name: str
    alias: str
    previous_revision: int
    revision: int
    flip_time: datetime
    shares: tuple[tuple[int, float], ...] = ()
    """Revision number and share of each, which sum to 1, if the alias shares its callers now; `revision` has the
    largest."""


@dataclass(frozen=True)
class Capacity:
    """How many adapters fit."""

    slots: int
    slots_used: int
    host_adapters: int
    host_adapters_used: int
    max_rank: int
    adapter_size_bytes: int
    cache_free_bytes: int
    cache_adapters: int
