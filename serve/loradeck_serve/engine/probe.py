"""The probe at load: does the engine answer with the adapter that was trained, and not with the base?

It cannot do harm beyond its own adapter. Its requests carry the adapter's digest, so that what they leave in the prefix
cache is read by no other revision; rows of one request never enter another's; and on a CPU, where attention reads whole
blocks of the key-value cache, a block is zeroed when it is handed to a request, so that values that are not finite end
with the request that wrote them.
"""

import asyncio
import math
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from loradeck_registry.errors import PreconditionError
from loradeck_serve.engine.base import Engine
from loradeck_tasks.probe import Probe, ProbePrompt

FACTOR = 0.25
"""Largest accepted share of the adapter's own effect that the served answer may be off by."""

NOISE_FLOOR = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 0.1}
"""Mean difference in nats below which an adapter cannot be told from the base.

Between PEFT and the engine the same adapter differs by 0.013 to 0.03 nats in bfloat16 and by less than 1e-5 in float32
(pocket base, 16 prompts, the 16 tokens that the adapter moves most). Half the floor is always accepted: for an adapter
just above it, a quarter of its effect would be no more than this noise.
"""


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
    factor: float = FACTOR,
    allow_indistinct: bool = False,
    name: str = "probe",
) -> ProbeResult:
    """Run `probe` on a loaded adapter.

    `adapter` is its digest and `name` the prefix of the requests' names. Raises PreconditionError: PROBE_FAILED if the
    engine's answers are not the trained adapter's or not finite, INDISTINCT if the adapter's own effect is under the
    noise floor and `allow_indistinct` is not set. The adapter stays loaded: taking it out is the caller's business.
    """
    error, distance = await distances(engine, probe, adapter, name=name)
    if not math.isfinite(error):
        raise PreconditionError(
            f"adapter {adapter} answers with values that are not finite: publish it in a precision that can hold them",
            reason="PROBE_FAILED",
        )
    floor = max(NOISE_FLOOR.get(precision, NOISE_FLOOR["bfloat16"]) for precision in (probe.dtype, engine.info.dtype))
    indistinct = distance < floor
    limit = floor if indistinct else max(factor * distance, floor / 2)
    if error > limit:
        raise PreconditionError(
            f"adapter {adapter} does not answer as it did after training: off by {error:.3g} nats where "
            f"{limit:.3g} are accepted (its own effect is {distance:.3g}); wrong base, template or files",
            reason="PROBE_FAILED",
            metadata={"error": f"{error:.4g}", "distance": f"{distance:.4g}", "limit": f"{limit:.4g}"},
        )
    if indistinct and not allow_indistinct:
        raise PreconditionError(
            f"adapter {adapter} cannot be told from its base ({distance:.3g} nats, noise is {floor:.3g}): "
            "load it with indistinct adapters allowed if that is meant",
            reason="INDISTINCT",
            metadata={"distance": f"{distance:.4g}", "floor": f"{floor:.4g}"},
        )
    return ProbeResult(error, distance, "indistinct" if indistinct else "equal")


async def distances(engine: Engine, probe: Probe, adapter: str, *, name: str = "probe") -> tuple[float, float]:
    """Means of |served - trained| and |trained - base|, in nats; the first is infinite if an answer is not finite."""
    answers = await asyncio.gather(
        *(_answer(engine, prompt, adapter, f"{name}-{number}") for number, prompt in enumerate(probe.prompts))
    )
    triples = [
        (served, trained, base)
        for values, prompt in zip(answers, probe.prompts, strict=True)
        for served, trained, base in zip(values, prompt.adapter_logprobs, prompt.base_logprobs, strict=True)
    ]
    distance = fmean(abs(trained - base) for _, trained, base in triples)
    if not all(math.isfinite(served) for served, _, _ in triples):
        return math.inf, distance
    return fmean(abs(served - trained) for served, trained, _ in triples), distance


async def _answer(engine: Engine, prompt: ProbePrompt, adapter: str, request_id: str) -> list[float]:
    scores = await engine.score(request_id, prompt.token_ids, [[token] for token in prompt.candidates], adapter)
    return [value for (value,) in scores.logprobs]
