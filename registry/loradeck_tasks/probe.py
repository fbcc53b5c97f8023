"""The probe: measured at publish, run at load, it proves that the served adapter is the trained one."""

from collections.abc import Sequence
from heapq import nlargest

from pydantic import BaseModel, ConfigDict, Field

CANDIDATES = 16
"""Tokens of each prompt that a probe compares."""


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


def choose_candidates(moved: Sequence[float], vocabulary: int) -> list[int]:
    """Places of `CANDIDATES` tokens where `moved`, how far an adapter moves each token, is largest; at least half of
    them are the base's own, which come first, `vocabulary` of them.

    A server judges those apart from added tokens: the rows of new tokens move their own values so much that candidates
    of theirs alone would say nothing of the adapter's matrices.
    """
    own = nlargest(CANDIDATES // 2, range(min(vocabulary, len(moved))), key=moved.__getitem__)
    left = set(range(len(moved))).difference(own)
    return own + nlargest(CANDIDATES - len(own), left, key=moved.__getitem__)
