"""What requests may ask for, and how the queue shares the engine."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from loradeck_serve.config.strict import Strict


class Limits(Strict):
    """What one request and all requests together may ask for. Changes hold from the next request on.

    `message_bytes` and `load_wait_seconds` need a restart, and `concurrent` above its value at the start.
    """

    message_bytes: int = Field(default=4 << 20, ge=1024, le=1 << 30, description="largest gRPC message")
    text_characters: int = Field(default=200_000, ge=1, description="longest text, question, context or field")
    batch_texts: int = Field(default=256, ge=1, le=4096, description="most texts of one BatchClassify")
    max_tokens: int = Field(default=1024, ge=1, description="most tokens that a request may ask to generate")
    prompt_tokens: int = Field(
        default=0, ge=0, description="most tokens of a prompt; 0: what the model's context leaves"
    )
    default_deadline_seconds: float = Field(default=120, gt=0, description="of a request that sets none")
    max_deadline_seconds: float = Field(default=600, gt=0, description="longer deadlines are cut to this")
    queue: int = Field(default=1024, ge=1, description="requests waiting for dispatch, over all adapters")
    queue_per_adapter: int = Field(default=512, ge=1, description="requests waiting for dispatch, of one adapter")
    concurrent: int = Field(default=256, ge=1, description="requests in the engine at once")
    concurrent_per_adapter: int = Field(
        default=192,
        ge=1,
        description="requests of one adapter in the engine at once; below `concurrent`, so that others need not wait "
        "for one of its requests to end; three quarters of it if not given",
    )
    concurrent_per_caller: int = Field(
        default=0, ge=0, description="requests of one caller in the engine at once; 0 is no bound"
    )
    calls: int = Field(
        default=4096, ge=1, description="calls at once of one door, whatever they do; more get RESOURCE_EXHAUSTED"
    )
    quota_wait_seconds: float = Field(
        default=1.0, ge=0, le=60, description="how long a call over its caller's grants waits before it is refused"
    )
    write_stall_seconds: float = Field(
        default=10, gt=0, description="a stream whose caller reads nothing for this long is cut"
    )
    rate_per_adapter: float = Field(
        default=0, ge=0, description="requests of one adapter per second; more wait in the queue; 0 is no bound"
    )
    rate_per_caller: float = Field(
        default=0, ge=0, description="requests of one caller per second; more wait in the queue; 0 is no bound"
    )
    chunk_milliseconds: float = Field(
        default=10, ge=0, le=1000, description="longest that a streamed token waits to share a chunk with the next ones"
    )
    load_wait_seconds: float = Field(
        default=20, gt=0, description="longest wait for room in host memory before RESOURCE_EXHAUSTED"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.default_deadline_seconds > self.max_deadline_seconds:
            raise ValueError("`default_deadline_seconds` must not exceed `max_deadline_seconds`")
        if "concurrent_per_adapter" not in self.model_fields_set:
            # One adapter must not fill an engine whose bound was lowered.
            object.__setattr__(self, "concurrent_per_adapter", max(1, self.concurrent * 3 // 4))
        return self


class Fairness(Strict):
    """How the queue shares the engine between adapters (virtual token counting)."""

    quantum_seconds: float = Field(
        default=0.1, gt=0, le=60, description="how long an adapter may hold a slot while another one waits for it"
    )
    swaps_per_second: float = Field(
        default=0, ge=0, description="adapters that come into a slot per second, beside those in one; 0 is no bound"
    )
    prompt_token_cost: float = Field(default=1.0, gt=0, description="virtual time of one prompt token")
    output_token_cost: float = Field(default=2.0, gt=0, description="virtual time of one output token")
    weights: dict[str, float] = Field(
        default_factory=dict, description="share per adapter name, 1 unless said otherwise; 2 gets twice as much"
    )

    @field_validator("weights")
    @classmethod
    def _positive(cls, weights: dict[str, float]) -> dict[str, float]:
        bad = [name for name, weight in weights.items() if not weight > 0]
        if bad:
            raise ValueError(f"weights must be greater than 0: {', '.join(bad)}")
        return weights
