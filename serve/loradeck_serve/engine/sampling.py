"""From the engine's own terms to vLLM's: prompts and sampling parameters."""

from collections.abc import Sequence
from typing import Any

from loradeck_serve.engine.base import GenerateSettings


def generate_params(settings: GenerateSettings) -> Any:
    """Token ids as they come, and no stop but those of `settings`: the model's own end token may be one that an
    adapter never trained."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=settings.seed,
        stop_token_ids=list(settings.stop_token_ids),
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY if settings.whole else RequestOutputKind.DELTA,
    )


def score_params(tokens: Sequence[int]) -> Any:
    """One forward pass that returns the log-probabilities of `tokens` (at most 128) at the next position."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        logprob_token_ids=list(tokens),
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def token_prompt(tokens: Sequence[int]) -> Any:
    """A prompt that vLLM takes as it is, without its own tokenization step."""
    from vllm.inputs.engine import tokens_input

    return tokens_input(list(tokens))
