"""What the probe makes of an engine's answers."""

import math
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType, SimpleNamespace

import pytest

from loradeck_registry.errors import PreconditionError
from loradeck_serve.engine.base import EngineOutput, Scores
from loradeck_serve.engine.probe import FACTOR, FLOOR, NOISE, TIE, run_probe
from loradeck_tasks.probe import Probe, ProbePrompt

ADDED = (100, 101)
BASE_TOKENS = (1, 2, 3)
NOISE_32 = NOISE["float32"]


GREEDY = (11, 12, 13, 14)
OTHER = 99


def make_probe(
    effect: float, effect_of_added: float = 0.0, dtype: str = "float32", greedy: tuple[int, ...] = ()
) -> Probe:
    """Trained values are 0 below the base's by the effect."""
    tokens = (*BASE_TOKENS, *(ADDED if effect_of_added else ()))
    effects = [effect_of_added if token in ADDED else effect for token in tokens]
    prompt = ProbePrompt(
        token_ids=(5, 6),
        candidates=tokens,
        adapter_logprobs=tuple(-1.0 - effect for effect in effects),
        base_logprobs=tuple(-1.0 for _ in effects),
        greedy=greedy,
    )
    return Probe(dtype=dtype, prompts=(prompt, prompt), distance=sum(effects) / len(effects))


class Engine:
    """Answers with the trained values, off by `error` for the base's tokens, and goes on as `GREEDY`, but for positions
    in `leads`, where another token leads by so much."""

    def __init__(
        self, probe: Probe, error: float, dtype: str = "float32", leads: Mapping[int, float] = MappingProxyType({})
    ) -> None:
        self.info = SimpleNamespace(dtype=dtype)
        self._probe = probe
        self._error = error
        self._leads = leads
        self.passes = 0

    async def generate(self, request_id, prompt, settings, adapter, priority=0) -> AsyncIterator[EngineOutput]:
        self.passes += 1
        done = len(prompt) - 2
        assert tuple(prompt[2:]) == GREEDY[:done], "the comparison goes on behind the trained tokens"
        tokens: list[int] = []
        while len(tokens) < settings.max_tokens:
            # Behind a token that differs, nothing is as it was.
            place = done + len(tokens)
            tokens.append(OTHER if OTHER in tokens or place in self._leads else GREEDY[place])
        yield EngineOutput(tuple(tokens), "length")

    async def score(self, request_id, prompt, candidates, adapter, priority=0) -> Scores:
        if [OTHER] in candidates:
            place = len(prompt) - 2
            assert list(candidates) == [[GREEDY[place]], [OTHER]]
            return Scores(((-1.0 - self._leads[place],), (-1.0,)))
        first = self._probe.prompts[0]
        values = dict(zip(first.candidates, first.adapter_logprobs, strict=True))
        return Scores(tuple((values[token] + (self._error if token not in ADDED else 0.0),) for (token,) in candidates))


async def judge(probe: Probe, error: float, **options) -> str:
    """The verdict or the reason of the refusal."""
    engine = Engine(probe, error, options.pop("dtype", "float32"), options.pop("leads", {}))
    try:
        return (await run_probe(engine, probe, "digest", **options)).verdict
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


@pytest.mark.parametrize("place", range(len(GREEDY)))
@pytest.mark.parametrize(("share", "verdict"), [(0.9, "equal"), (1.1, "PROBE_FAILED")])
async def test_another_greedy_token_counts_where_it_is_no_tie(place, share, verdict) -> None:
    probe = make_probe(4.0, greedy=GREEDY)
    assert await judge(probe, 0.0, leads={place: share * TIE * FACTOR * 4.0}) == verdict


async def test_the_comparison_goes_on_behind_a_tie() -> None:
    probe = make_probe(4.0, greedy=GREEDY)
    tie = 0.5 * TIE * FACTOR * 4.0
    assert await judge(probe, 0.0, leads=dict.fromkeys(range(len(GREEDY)), tie)) == "equal"
    assert await judge(probe, 0.0, leads={0: tie, 3: 3.0}) == "PROBE_FAILED"


async def test_equal_continuations_take_one_pass_for_each_prompt() -> None:
    probe = make_probe(4.0, greedy=GREEDY)
    engine = Engine(probe, 0.0)
    await run_probe(engine, probe, "digest")
    assert engine.passes == len(probe.prompts)


@pytest.mark.parametrize("error", [math.nan, math.inf])
async def test_answers_that_are_not_finite_fail(error) -> None:
    assert await judge(make_probe(4.0), error) == "PROBE_FAILED"
