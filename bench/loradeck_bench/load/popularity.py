"""Which adapter each request goes to: popularity laws by exact name, and the shares that came out."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from loradeck_registry.errors import InvalidError

LAWS = "uniform, round_robin, zipf:S (weights (i+1)^-S) or weights:W1,W2,…"


def choices(law: str, adapters: Sequence[str], seed: int) -> Iterator[str]:
    """An endless sequence of adapters.

    `uniform` draws independently with equal probability; `round_robin` takes them in turn; `zipf:S` draws with weights
    (i+1)^-S in the order given; `weights:…` draws with the weights given. The same seed gives the same sequence.
    Raises InvalidError for an unknown law or bad weights.
    """
    if not adapters:
        raise InvalidError("no adapter to ask: name one or more", reason="NO_ADAPTER", field="adapter")
    if law == "round_robin":
        return itertools.cycle(adapters)
    return _drawn(adapters, _weights(law, len(adapters)), random.Random(seed))


def shares(chosen: Iterable[str]) -> dict[str, float]:
    """The share of requests that each adapter really got, largest first."""
    counts = Counter(chosen)
    total = counts.total()
    return {name: count / total for name, count in counts.most_common()}


def _drawn(adapters: Sequence[str], weights: Sequence[float], rng: random.Random) -> Iterator[str]:
    cumulative = list(itertools.accumulate(weights))
    while True:
        yield rng.choices(adapters, cum_weights=cumulative)[0]


def _weights(law: str, count: int) -> list[float]:
    name, separator, argument = law.partition(":")
    try:
        if name == "uniform" and not separator:
            return [1.0] * count
        if name == "zipf":
            exponent = float(argument)
            if math.isfinite(exponent) and exponent >= 0:
                return [float((rank + 1) ** -exponent) for rank in range(count)]
        if name == "weights":
            weights = [float(part) for part in argument.split(",")]
            if len(weights) != count:
                raise InvalidError(
                    f"{law!r} has {len(weights)} weights for {count} adapters", reason="BAD_LAW", field="popularity"
                )
            if all(math.isfinite(w) and w >= 0 for w in weights) and sum(weights) > 0:
                return weights
    except ValueError:
        pass
    raise InvalidError(f"bad popularity law {law!r}: use {LAWS}", reason="BAD_LAW", field="popularity")
