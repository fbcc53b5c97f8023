"""Alias moves under load: which revision may answer a request, by when it was sent and ended."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Flip:
    """One move of the alias of `name`. Times in seconds on the run's clock."""

    name: str
    digest: str
    """What the alias means from now on."""
    started: float
    """The move began: from here on the new revision may answer."""
    acknowledged: float | None = None
    """The server has said that it follows: requests sent later must not be answered by the old revision. None if it
    never said so."""


def allowed(flips: Sequence[Flip], initial: str, name: str, sent: float, end: float) -> set[str]:
    """Digests that may answer a request to the alias of `name` that was sent and ended at these times.

    `flips` in order of time; `initial` is what the alias meant before the first. A digest may answer if the alias meant
    it, or may have, at some moment in between.
    """
    own = [flip for flip in flips if flip.name == name]
    stages = [(float("-inf"), initial), *((flip.started, flip.digest) for flip in own)]
    ends = [*(float("inf") if flip.acknowledged is None else flip.acknowledged for flip in own), float("inf")]
    return {digest for (since, digest), until in zip(stages, ends, strict=True) if since <= end and sent <= until}
