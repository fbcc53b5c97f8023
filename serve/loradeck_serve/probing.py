"""The probe at load: does the adapter do in the engine what training saw, and is it more than the base?"""

import math
from dataclasses import dataclass

from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Revision
from loradeck_serve.engine.base import Engine
from loradeck_tasks.probe import Probe

FACTOR = 0.25
"""Largest mean |served - adapter| as a share of mean |adapter - base|."""
NOISE_FLOOR = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}
"""Mean differences, in nats, that rounding alone can make; an adapter whose own effect is below is `indistinct`."""


@dataclass(frozen=True)
class ProbeResult:
    """What was measured, in nats, means over all candidates."""

    error: float
    distance: float
    indistinct: bool


async def run_probe(
    engine: Engine, revision: Revision, allow_indistinct: bool, factor: float = FACTOR
) -> ProbeResult | None:
    """Score the probe's prompts with the loaded adapter. None if the revision carries no probe.

    Raises PreconditionError: PROBE_FAILED (the served adapter is not the trained one), PROBE_NOT_FINITE, INDISTINCT.
    """
    if revision.manifest.probe is None:
        return None
    probe = Probe.model_validate(revision.manifest.probe)
    errors: list[float] = []
    for number, prompt in enumerate(probe.prompts):
        scores = await engine.score(
            f"probe-{revision.digest[7:23]}-{number}",
            prompt.token_ids,
            [(token,) for token in prompt.candidates],
            revision.digest,
        )
        served = [values[0] for values in scores.logprobs]
        if not all(map(math.isfinite, served)):
            raise PreconditionError(
                f"{revision} gives log-probabilities that are not finite on its own probe: train it again",
                reason="PROBE_NOT_FINITE",
            )
        errors.extend(abs(a - b) for a, b in zip(served, prompt.adapter_logprobs, strict=True))
    error = sum(errors) / len(errors)
    floor = NOISE_FLOOR.get(probe.dtype, NOISE_FLOOR["bfloat16"])
    indistinct = probe.distance < floor
    measured = {"probe_error": f"{error:.6f}", "probe_distance": f"{probe.distance:.6f}"}
    if indistinct and not allow_indistinct:
        raise PreconditionError(
            f"{revision} hardly differs from its base (mean {probe.distance:.4g} nats): train longer, or start the "
            "server with allow_indistinct",
            reason="INDISTINCT",
            metadata=measured,
        )
    if error > max(factor * probe.distance, floor):
        raise PreconditionError(
            f"{revision} does not do here what it did in training: mean error {error:.4g} nats where it differs from "
            f"the base by {probe.distance:.4g}; was it trained on this very base and template?",
            reason="PROBE_FAILED",
            metadata=measured,
        )
    return ProbeResult(error, probe.distance, indistinct)
