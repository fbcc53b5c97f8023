"""The probe: measured at publish, run at load, it proves that the served adapter is the trained one."""

from collections.abc import Sequence
from heapq import nlargest
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CANDIDATES = 16
"""Tokens of each prompt that a probe compares."""

# A server runs what a publisher wrote, before it answers anybody: all of it is bounded.
MAX_PROMPTS = 64
MAX_PROMPT_TOKENS = 1 << 17
MAX_GREEDY = 128

Token = Annotated[int, Field(ge=0, le=2**31 - 1)]
Logprob = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbePrompt(_Strict):
    """One prompt and what adapter and base say next, in natural-log probabilities of the raw logits."""

    token_ids: tuple[Token, ...] = Field(
        min_length=1, max_length=MAX_PROMPT_TOKENS, description="prompt, added tokens included"
    )
    candidates: tuple[Token, ...] = Field(
        min_length=1, max_length=128, description="tokens where adapter and base differ most at the next position"
    )
    adapter_logprobs: tuple[Logprob, ...] = Field(
        max_length=128, description="under base plus adapter, one per candidate"
    )
    base_logprobs: tuple[Logprob, ...] = Field(max_length=128, description="under the base alone, one per candidate")
    greedy: tuple[Token, ...] = Field(
        default=(), max_length=MAX_GREEDY, description="the adapter's greedy continuation, a few tokens"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if {len(self.adapter_logprobs), len(self.base_logprobs)} != {len(self.candidates)}:
            raise ValueError("`adapter_logprobs` and `base_logprobs` must have one value per candidate")
        return self


class Probe(_Strict):
    """Stored in the manifest as JSON. Log-probabilities are computed in `dtype` on the base as served."""

    dtype: str = Field(max_length=32, description="precision of the computation, for example bfloat16")
    prompts: tuple[ProbePrompt, ...] = Field(min_length=1, max_length=MAX_PROMPTS)
    distance: float = Field(ge=0, allow_inf_nan=False, description="mean |adapter - base| over all candidates, in nats")


def choose_candidates(moved: Sequence[float], vocabulary: int) -> list[int]:
    """Places of `CANDIDATES` tokens where `moved`, how far an adapter moves each token, is largest; at least half of
    them are the base's own, which come first, `vocabulary` of them.

    A server judges those apart from added tokens: the rows of new tokens move their own values so much that candidates
    of theirs alone would say nothing of the adapter's matrices.
    """
    own = nlargest(CANDIDATES // 2, range(min(vocabulary, len(moved))), key=moved.__getitem__)
    left = set(range(len(moved))).difference(own)
    return own + nlargest(CANDIDATES - len(own), left, key=moved.__getitem__)
