"""The probe at load: does the engine answer with the adapter that was trained, and not with the base?

It cannot do harm beyond its own adapter. Its requests carry the adapter's digest, so that what they leave in the prefix
cache is read by no other revision; rows of one request never enter another's; and on a CPU, where attention reads whole
blocks of the key-value cache, a block is zeroed when it is handed to a request, so that values that are not finite end
with the request that wrote them.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from loradeck_registry.errors import PreconditionError
from loradeck_serve.engine.base import Engine, GenerateSettings
from loradeck_tasks.probe import Probe, ProbePrompt

FACTOR = 0.1
"""Largest accepted share of the adapter's own effect that the served answer may be off by."""

NOISE = {"float32": 5e-4, "float16": 1.25e-2, "bfloat16": 0.1}
"""Difference in nats that is always accepted: between PEFT and the engine the right adapter differs by as much.

Both numbers are chosen from `python -m loradeck_serve.engine.measuring.probe_noise` (pocket base, eleven random and
trained adapters): right adapters are off by less than 1e-5 nats in float32, 0.004 in float16 and 0.034 in bfloat16,
whatever their effect; three times that is accepted, and more in float32, where machines sum in other orders. A factor
of 0.1 is over twice the share of any right adapter whose effect is 0.4 nats or more, and under what adapters lack
whose attention, first layer or half scale is missing (0.26 of their effect and up).
"""

TIE = 2.0
"""A greedy token other than the trained one counts when it leads by more than so many times what is accepted.

Where the trained token led, however closely, another one that leads by twice the accepted error says that one of both
values is off by more than that; below it, both were as good as tied.
"""

FLOOR = 1.5
"""An adapter whose effect is below so many times the noise cannot be told from the base."""


@dataclass(frozen=True)
class Difference:
    """Means over some of the probe's candidates, in nats."""

    error: float
    """|served - trained|; infinite if an answer is not finite."""
    distance: float
    """|trained - base|: the adapter's own effect."""


@dataclass(frozen=True)
class ProbeResult:
    """What the probe found, in nats, as means over all prompts and candidates."""

    error: float
    """|served - trained|."""
    distance: float
    """|trained - base|: the adapter's own effect."""
    verdict: Literal["equal", "indistinct"]


async def run_probe(
    engine: Engine,
    probe: Probe,
    adapter: str,
    *,
    added_token_ids: Collection[int] = (),
    factor: float = FACTOR,
    allow_indistinct: bool = False,
    name: str = "probe",
) -> ProbeResult:
    """Run `probe` on a loaded adapter.

    `adapter` is its digest, `added_token_ids` are its own tokens, and `name` is the prefix of the requests' names. The
    base's tokens and the adapter's own are judged apart: new rows move so much that matrices that are missing beside
    them would not show. Where the probe has greedy continuations, the engine must go on as the trained adapter did,
    ties aside. Raises PreconditionError: PROBE_FAILED if the engine's answers are not the trained adapter's or not
    finite, INDISTINCT if the adapter's own effect is under the noise floor and `allow_indistinct` is not set. The
    adapter stays loaded: taking it out is the caller's business.
    """
    served = await _served(engine, probe, adapter, name)
    whole = difference(probe, served)
    if not math.isfinite(whole.error):
        raise PreconditionError(
            f"adapter {adapter} answers with values that are not finite: publish it in a precision that can hold them",
            reason="PROBE_FAILED",
        )
    noise = max(NOISE.get(precision, NOISE["bfloat16"]) for precision in (probe.dtype, engine.info.dtype))
    for part in parts(probe, served, added_token_ids):
        limit = max(factor * part.distance, noise)
        if part.error > limit:
            raise PreconditionError(
                f"adapter {adapter} does not answer as it did after training: off by {part.error:.3g} nats where "
                f"{limit:.3g} are accepted (its own effect is {part.distance:.3g}); wrong base, template or files",
                reason="PROBE_FAILED",
                metadata={
                    "error": f"{part.error:.4g}",
                    "distance": f"{part.distance:.4g}",
                    "limit": f"{limit:.4g}",
                },
            )
    lead = await largest_lead(engine, probe, adapter, name=name)
    accepted = TIE * max(factor * whole.distance, noise)
    if lead > accepted:
        raise PreconditionError(
            f"adapter {adapter} goes on with other tokens than after training: another one leads by {lead:.3g} nats "
            f"where {accepted:.3g} can be a tie; wrong base, template or files",
            reason="PROBE_FAILED",
            metadata={"lead": f"{lead:.4g}", "limit": f"{accepted:.4g}"},
        )
    floor = FLOOR * noise
    indistinct = whole.distance < floor
    if indistinct and not allow_indistinct:
        raise PreconditionError(
            f"adapter {adapter} cannot be told from its base ({whole.distance:.3g} nats, noise is {floor:.3g}): "
            "load it with indistinct adapters allowed if that is meant",
            reason="INDISTINCT",
            metadata={"distance": f"{whole.distance:.4g}", "floor": f"{floor:.4g}"},
        )
    return ProbeResult(whole.error, whole.distance, "indistinct" if indistinct else "equal")


async def measure_probe(
    engine: Engine, probe: Probe, adapter: str, added_token_ids: Collection[int] = (), *, name: str = "probe"
) -> list[Difference]:
    """What `run_probe` judges: of the base's tokens, and of the adapter's own where the probe has some."""
    return parts(probe, await _served(engine, probe, adapter, name), added_token_ids)


def parts(probe: Probe, served: Sequence[Sequence[float]], added_token_ids: Collection[int]) -> list[Difference]:
    """The difference of `served` for the base's tokens, and for added ones; what the probe has none of is left out."""
    added = frozenset(added_token_ids)
    kept: tuple[Callable[[int], bool], ...] = (lambda token: token not in added, lambda token: token in added)
    tokens = [token for prompt in probe.prompts for token in prompt.candidates]
    return [difference(probe, served, keep) for keep in kept if any(map(keep, tokens))]


def difference(
    probe: Probe, served: Sequence[Sequence[float]], keep: Callable[[int], bool] = lambda token: True
) -> Difference:
    """The difference over candidates to `keep`; `served` has the log-probabilities of each prompt's candidates."""
    triples = [
        (value, trained, base)
        for values, prompt in zip(served, probe.prompts, strict=True)
        for value, token, trained, base in zip(
            values, prompt.candidates, prompt.adapter_logprobs, prompt.base_logprobs, strict=True
        )
        if keep(token)
    ]
    distance = fmean(abs(trained - base) for _, trained, base in triples)
    if not all(math.isfinite(value) for value, _, _ in triples):
        return Difference(math.inf, distance)
    return Difference(fmean(abs(value - trained) for value, trained, _ in triples), distance)


async def _served(engine: Engine, probe: Probe, adapter: str, name: str) -> list[list[float]]:
    return await asyncio.gather(
        *(_answer(engine, prompt, adapter, f"{name}-{number}") for number, prompt in enumerate(probe.prompts))
    )


async def _answer(engine: Engine, prompt: ProbePrompt, adapter: str, request_id: str) -> list[float]:
    scores = await engine.score(request_id, prompt.token_ids, [[token] for token in prompt.candidates], adapter)
    return [value for (value,) in scores.logprobs]


async def largest_lead(engine: Engine, probe: Probe, adapter: str, *, name: str = "probe") -> float:
    """The largest lead, in nats, of a served greedy token over the one that the trained adapter went on with; 0 if all
    continuations are the same."""
    leads = await asyncio.gather(
        *(_lead(engine, prompt, adapter, f"{name}-greedy-{number}") for number, prompt in enumerate(probe.prompts))
    )
    return max(leads, default=0.0)


async def _lead(engine: Engine, prompt: ProbePrompt, adapter: str, name: str) -> float:
    """Of one prompt. After a token that differs, the comparison goes on behind the trained one."""
    largest, done = 0.0, 0
    while done < len(prompt.greedy):
        prefix, wanted = (*prompt.token_ids, *prompt.greedy[:done]), prompt.greedy[done:]
        settings = GenerateSettings(max_tokens=len(wanted), whole=True)
        served = [
            token
            async for output in engine.generate(f"{name}-{done}", prefix, settings, adapter)
            for token in output.token_ids
        ]
        same = next((i for i, (w, s) in enumerate(zip(wanted, served, strict=False)) if w != s), None)
        if same is None:
            # All alike, or as far as the engine's context goes.
            break
        candidates = [[wanted[same]], [served[same]]]
        scores = await engine.score(f"{name}-{done}-lead", (*prefix, *wanted[:same]), candidates, adapter)
        (trained,), (other,) = scores.logprobs
        largest, done = max(largest, other - trained), done + same + 1
    return largest
