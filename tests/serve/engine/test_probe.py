"""What the probe makes of an engine's answers."""

import math
from types import SimpleNamespace

import pytest

from loradeck_registry.errors import PreconditionError
from loradeck_serve.engine.base import Scores
from loradeck_serve.engine.probe import FACTOR, FLOOR, NOISE, run_probe
from loradeck_tasks.probe import Probe, ProbePrompt

ADDED = (100, 101)
BASE_TOKENS = (1, 2, 3)
NOISE_32 = NOISE["float32"]


def make_probe(effect: float, effect_of_added: float = 0.0, dtype: str = "float32") -> Probe:
    """Trained values are 0 below the base's by the effect."""
    tokens = (*BASE_TOKENS, *(ADDED if effect_of_added else ()))
    effects = [effect_of_added if token in ADDED else effect for token in tokens]
    prompt = ProbePrompt(
        token_ids=(5, 6),
        candidates=tokens,
        adapter_logprobs=tuple(-1.0 - effect for effect in effects),
        base_logprobs=tuple(-1.0 for _ in effects),
    )
    return Probe(dtype=dtype, prompts=(prompt, prompt), distance=sum(effects) / len(effects))


class Engine:
    """Answers with the trained values, off by `error` for the base's tokens."""

    def __init__(self, probe: Probe, error: float, dtype: str = "float32") -> None:
        self.info = SimpleNamespace(dtype=dtype)
        self._probe = probe
        self._error = error

    async def score(self, request_id, prompt, candidates, adapter, priority=0) -> Scores:
        first = self._probe.prompts[0]
        values = dict(zip(first.candidates, first.adapter_logprobs, strict=True))
        return Scores(tuple((values[token] + (self._error if token not in ADDED else 0.0),) for (token,) in candidates))


async def judge(probe: Probe, error: float, **options) -> str:
    """The verdict or the reason of the refusal."""
    dtype = options.pop("dtype", "float32")
    try:
        return (await run_probe(Engine(probe, error, dtype), probe, "digest", **options)).verdict
    except PreconditionError as refused:
        return refused.reason


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("share", "verdict"), [(0.9, "equal"), (1.1, "PROBE_FAILED")])
async def test_a_strong_adapter_may_be_off_by_a_share_of_its_effect(share, verdict, sign) -> None:
    assert await judge(make_probe(4.0), sign * share * FACTOR * 4.0) == verdict


@pytest.mark.parametrize(("share", "verdict"), [(0.9, "equal"), (1.1, "PROBE_FAILED")])
async def test_a_weak_adapter_may_be_off_by_the_noise(share, verdict) -> None:
    assert await judge(make_probe(2 * FLOOR * NOISE_32), share * NOISE_32) == verdict


async def test_the_coarser_of_both_precisions_decides() -> None:
    weak = make_probe(2 * FLOOR * NOISE["bfloat16"])
    error = 0.9 * NOISE["bfloat16"]
    assert await judge(weak, error) == "PROBE_FAILED"
    assert await judge(weak, error, dtype="bfloat16") == "equal"


async def test_an_adapter_that_is_ignored_fails_however_weak_it_is_above_the_floor() -> None:
    for dtype, noise in NOISE.items():
        effect = 1.01 * FLOOR * noise
        assert await judge(make_probe(effect, dtype=dtype), effect, dtype=dtype) == "PROBE_FAILED"


async def test_strong_new_rows_do_not_hide_matrices_that_are_missing() -> None:
    probe = make_probe(0.5, effect_of_added=50.0)
    assert await judge(probe, 0.5, added_token_ids=ADDED) == "PROBE_FAILED"
    # The control: judged together they would.
    assert await judge(probe, 0.5) == "equal"


async def test_an_adapter_without_effect_needs_leave() -> None:
    probe = make_probe(0.9 * FLOOR * NOISE_32)
    assert await judge(probe, 0.0) == "INDISTINCT"
    assert await judge(probe, 0.0, allow_indistinct=True) == "indistinct"
    assert await judge(probe, 2 * NOISE_32, allow_indistinct=True) == "PROBE_FAILED"


@pytest.mark.parametrize("error", [math.nan, math.inf])
async def test_answers_that_are_not_finite_fail(error) -> None:
    assert await judge(make_probe(4.0), error) == "PROBE_FAILED"
