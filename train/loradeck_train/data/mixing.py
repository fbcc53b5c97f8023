"""Several tasks in one training set, each row as often as its part's weight says."""

import random
from collections.abc import Sequence

from loradeck_train.data.encoding import Encoded
from loradeck_train.data.spool import Chosen, Joined


def mix(parts: Sequence[tuple[Sequence[Encoded], float]], seed: int) -> Sequence[Encoded]:
    """Examples of all parts behind one another. Weight 2 takes each row twice, 0.5 a random half of the rows, the same
    half for the same seed; a part with rows and weight keeps at least one."""
    chosen = [_weighted(examples, weight, seed + number) for number, (examples, weight) in enumerate(parts)]
    return chosen[0] if len(chosen) == 1 else Joined(chosen)


def _weighted(examples: Sequence[Encoded], weight: float, seed: int) -> Sequence[Encoded]:
    if weight == 1.0:
        return examples
    whole, share = divmod(weight, 1.0)
    count = round(len(examples) * share)
    if not whole:
        count = max(count, min(1, len(examples)))
    numbers = [*range(len(examples))] * int(whole) + sorted(random.Random(seed).sample(range(len(examples)), count))
    return Chosen(examples, numbers)
