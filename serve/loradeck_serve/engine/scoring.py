"""Scoring candidates that share prefixes: which forward passes are needed, and what each candidate's tokens get."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

MAX_IDS = 128
"""Most token ids whose log-probabilities one forward pass returns (vLLM's limit)."""

Prefix = tuple[int, ...]
NextLogprobs = Callable[[Prefix, Sequence[int]], Awaitable[dict[int, float]]]
"""Log-probabilities of the given next tokens (at most MAX_IDS) after prompt and prefix."""


def next_tokens(candidates: Sequence[Sequence[int]]) -> dict[Prefix, list[int]]:
    """The trie of `candidates`: for every distinct proper prefix, shortest first, the tokens that follow it."""
    following: dict[Prefix, dict[int, None]] = {}
    for candidate in candidates:
        for position, token in enumerate(candidate):
            following.setdefault(tuple(candidate[:position]), {})[token] = None
    return {prefix: list(following[prefix]) for prefix in sorted(following, key=len)}


async def score_candidates(
    candidates: Sequence[Sequence[int]], next_logprobs: NextLogprobs
) -> tuple[tuple[float, ...], ...]:
    """Log-probability of every token of every candidate.

    The empty prefix goes first and alone, so that its pass fills the prefix cache; all longer ones then run at once.
    Cancelling the call cancels every pass.
    """
    passes = [
        (prefix, tokens[start : start + MAX_IDS])
        for prefix, tokens in next_tokens(candidates).items()
        for start in range(0, len(tokens), MAX_IDS)
    ]
    if not passes:
        return tuple(() for _ in candidates)
    (first, *rest) = passes
    results = [await next_logprobs(*first)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_result(next_logprobs, prefix, tokens)) for prefix, tokens in rest]
    results += [task.result() for task in tasks]
    found: dict[tuple[Prefix, int], float] = {}
    for (prefix, _), logprobs in zip(passes, results, strict=True):
        found |= {(prefix, token): value for token, value in logprobs.items()}
    return tuple(
        tuple(found[tuple(candidate[:position]), token] for position, token in enumerate(candidate))
        for candidate in candidates
    )


async def _result(next_logprobs: NextLogprobs, prefix: Prefix, tokens: Sequence[int]) -> dict[int, float]:
    return await next_logprobs(prefix, tokens)
