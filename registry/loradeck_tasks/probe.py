"""The probe: measured at publish, run at load, it proves that the served adapter is the trained one."""

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbePrompt(_Strict):
    """One prompt and what adapter and base say next, in natural-log probabilities of the raw logits."""

    token_ids: tuple[int, ...] = Field(min_length=1, description="prompt, added tokens included")
    candidates: tuple[int, ...] = Field(
        min_length=1, max_length=128, description="tokens where adapter and base differ most at the next position"
    )
    adapter_logprobs: tuple[float, ...] = Field(description="under base plus adapter, one per candidate")
    base_logprobs: tuple[float, ...] = Field(description="under the base alone, one per candidate")
    greedy: tuple[int, ...] = Field(default=(), description="the adapter's greedy continuation, a few tokens")


class Probe(_Strict):
    """Stored in the manifest as JSON. Log-probabilities are computed in `dtype` on the base as served."""

    dtype: str = Field(description="precision of the computation, for example bfloat16")
    prompts: tuple[ProbePrompt, ...] = Field(min_length=1)
    distance: float = Field(ge=0, description="mean |adapter - base| over all candidates, in nats")
