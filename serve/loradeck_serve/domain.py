"""What handlers take and give: requests and replies without any transport."""

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from loradeck_serve.access.identity import NOBODY, Identity
from loradeck_serve.tracing.stages import Trail
from loradeck_tasks.task import SamplingDefaults


class Residency(Enum):
    """Where an adapter revision was when a request for it arrived."""

    NONE = "none"
    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    REMOTE = "remote"


class Finish(Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    SCORED = "scored"


class Scoring(Enum):
    """How label probabilities were obtained."""

    LABEL_TOKENS = "label_tokens"
    TEXT_SUM = "text_sum"
    TEXT_MEAN = "text_mean"


@dataclass
class Call:
    """One call as it travels through the handlers: who asked, and what is known of it so far."""

    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    method: str = ""
    caller: str = ""
    """Who calls: as its credentials say; where none are asked for, as it says itself, or empty."""
    peer: str = ""
    """The host that the call comes from."""
    arrival: float = field(default_factory=time.monotonic)
    deadline: float = math.inf
    """When the caller gives up, as `time.monotonic` counts."""
    requested: str = ""
    """The reference as sent; empty for the base."""
    adapter: str | None = None
    """Name of the adapter that answers; empty for the base, None as long as the reference is not resolved."""

    access: Identity = field(default_factory=lambda: NOBODY)
    """The caller with its grants."""
    trail: Trail = field(default_factory=Trail)
    """What it went through, for its trace."""
    facts: dict[str, object] = field(default_factory=dict)
    """What the audit log is to know of an operator's call: digest, revision, alias, ..."""

    @property
    def identity(self) -> str:
        """Whom a weighted alias draws for: the caller, or the host where no caller is named."""
        return self.caller or self.peer


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
    """Token counts of one reply."""

    prompt_tokens: int
    output_tokens: int
    cached_prompt_tokens: int


@dataclass(frozen=True)
class Sampling:
    """Sampling as requested; None takes the task's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def applied(self, defaults: SamplingDefaults) -> tuple[float, float, int]:
        """Temperature, top_p and top_k with the task's defaults filled in."""
        return (
            defaults.temperature if self.temperature is None else self.temperature,
            defaults.top_p if self.top_p is None else self.top_p,
            defaults.top_k if self.top_k is None else self.top_k,
        )


@dataclass(frozen=True)
class ClassifyRequest:
    """Classify `text` with `adapter` (a reference; empty for the base), restricted to `labels` if given."""

    adapter: str
    text: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchClassifyRequest:
    """Classify several texts with one adapter."""

    adapter: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassifyReply:
    """`probabilities`: every candidate label, most probable first, summing to 1."""

    label: str
    probabilities: tuple[tuple[str, float], ...]
    method: Scoring
    provenance: Provenance
    usage: Usage


@dataclass(frozen=True)
class AnswerRequest:
    """A question about a context, for AnswerShort and AnswerLong."""

    adapter: str
    question: str
    context: str
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class GenerateRequest:
    """Exactly one of `fields` (for the task's template), `prompt` (as it is) and `message` (chat template)."""

    adapter: str
    fields: Mapping[str, str] | None = None
    prompt: str | None = None
    message: str | None = None
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Chunk:
    """Text to append, never empty, and the tokens behind it."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Final:
    """The end of a generation: the whole text and all that is known about it."""

    text: str
    finish: Finish
    provenance: Provenance
    usage: Usage


AdapterStateName = Literal["remote", "loading", "loaded", "cached", "draining", "failed"]


@dataclass(frozen=True)
class AdapterView:
    """What this server does with one adapter revision. Times are seconds since the epoch, 0 if never."""

    name: str
    revision: int
    digest: str
    aliases: tuple[str, ...]
    task: str
    rank: int
    size_bytes: int
    state: AdapterStateName
    pinned: bool
    running_requests: int
    load_time: float
    load_seconds: float
    error_reason: str
    last_use_time: float


@dataclass(frozen=True)
class AliasFlip:
    """An alias that began to mean another revision on this server; `previous_revision` is 0 if it was new."""

    name: str
    alias: str
    previous_revision: int
    revision: int
    flip_time: float
    shares: tuple[tuple[int, float], ...] = ()
    """Revision number and share of each, which sum to 1, if the alias shares its callers now."""


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
