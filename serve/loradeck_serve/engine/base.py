"""What the server asks of an engine. Token ids in, token ids and log-probabilities out; no text, no transport."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class EngineInfo:
    """Fixed facts of a started engine."""

    version: str
    max_model_len: int
    """Most tokens of prompt and output together."""
    rows: int
    """Rows of the embedding, reserved ones included."""
    slots: int
    """Adapters that can be in one batch; 0 if the engine was started without LoRA."""
    host_adapters: int
    """Adapters that the engine holds in host memory, slots included."""
    max_rank: int
    dtype: str
    kv_cache_tokens: int
    compiled: bool = False
    """Whether the model runs through torch.compile, and not operation by operation."""


@dataclass(frozen=True)
class EngineAdapter:
    """A validated adapter in a local folder that stays in place until it is unloaded.

    The folder holds `adapter_config.json`, `adapter_model.safetensors` (PEFT names, alpha = rank) and, if the adapter
    adds tokens, `new_tokens.safetensors` with `ids` [n] int64, `input_rows` [n, hidden] and `output_rows` [n, hidden].
    """

    digest: str
    """The engine's only name for it, and so the name space of its prefix cache."""
    folder: Path
    rank: int
    added_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class GenerateSettings:
    """Sampling of one request, all defaults applied."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    whole: bool = False
    """Nobody needs the steps: all tokens come in one output at the end, which costs the front end least."""


@dataclass(frozen=True)
class EngineOutput:
    """Tokens of one request since its last output, and the end. What is not read at once is merged into the next."""

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    cached_prompt_tokens: int = 0


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of candidate continuations, in natural log, before any sampling change."""

    logprobs: tuple[tuple[float, ...], ...]
    """One tuple per candidate: one value per token of it."""
    cached_prompt_tokens: int = 0


@dataclass(frozen=True)
class EngineStats:
    """A snapshot for metrics."""

    running: int = 0
    waiting: int = 0
    kv_cache_used: float = 0.0
    """Share of the key-value cache in use, 0 to 1."""
    loaded: tuple[str, ...] = field(default=())
    """Digests in host memory or a slot."""


class Engine(Protocol):
    """One base model that answers with any loaded adapter.

    All methods are called on one event loop. A cancelled call or a closed iterator aborts its request in the engine at
    once. Every method raises UnavailableError once the engine is dead; `wait_dead` then returns.
    """

    info: EngineInfo

    async def load(self, adapter: EngineAdapter) -> None:
        """Bring a validated adapter in. Idempotent by digest. Raises PreconditionError if the engine refuses it, or
        ExhaustedError if `host_adapters` are loaded already: eviction is the caller's business."""

    async def unload(self, digest: str) -> None:
        """Take an adapter out and free its memory. Idempotent. Never called while requests run on it."""

    def generate(
        self, request_id: str, prompt: Sequence[int], settings: GenerateSettings, adapter: str | None, priority: int = 0
    ) -> AsyncIterator[EngineOutput]:
        """Generate after `prompt` with a loaded adapter (by digest) or the base (None).

        Only the base's own tokens and the adapter's added tokens can be produced. The last output has a finish reason.
        A stop token ends the output and is not part of it. Lower priority values go first.
        """

    async def score(
        self,
        request_id: str,
        prompt: Sequence[int],
        candidates: Sequence[Sequence[int]],
        adapter: str | None,
        priority: int = 0,
    ) -> Scores:
        """Log-probability of every token of every candidate after `prompt`.

        Candidates of one token each (at most 128) take a single forward pass; longer ones share the prompt's prefix.
        """

    async def stats(self) -> EngineStats:
        """A snapshot."""

    async def wait_dead(self) -> str:
        """Return the reason when the engine has died; never returns while it lives."""

    async def stop(self) -> None:
        """Stop the engine and every process of it. Idempotent."""
