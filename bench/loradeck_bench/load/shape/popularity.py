"""Which adapter each request goes to: popularity laws by exact name, and the shares that came out."""

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from loradeck_registry.errors import InvalidError, NotFoundError

LAWS = (
    "uniform, round_robin, zipf:S (weights (i+1)^-S), geometric:A (weights A^i), power:A (adapter floor(n u^(1/A)), as "
    "S-LoRA), weights:W1,W2,…, weights:FILE.json, or drift:SECONDS:LAW"
)


def choices(law: str, adapters: Sequence[str], seed: int, now: Callable[[], float] = lambda: 0.0) -> Iterator[str]:
    """An endless sequence of adapters.

    `uniform` draws independently with equal probability; `round_robin` takes them in turn; the others draw with the
    weights that their names say, in the order given; a file holds an object of adapter and weight. `drift:SECONDS:LAW`
    moves the ranking on by one adapter every so many seconds of `now`, which is asked at every draw. The same seed
    gives the same sequence. Raises InvalidError for an unknown law or bad weights.
    """
    if not adapters:
        raise InvalidError("no adapter to ask: name one or more", reason="NO_ADAPTER", field="adapter")
    if law == "round_robin":
        return itertools.cycle(adapters)
    if law.startswith("drift:"):
        return _drifting(law, adapters, seed, now)
    return _drawn(adapters, _weights(law, adapters), random.Random(seed))


def shares(chosen: Iterable[str]) -> dict[str, float]:
    """The share of requests that each adapter really got, largest first."""
    counts = Counter(chosen)
    total = counts.total()
    return {name: count / total for name, count in counts.most_common()}


def _drawn(adapters: Sequence[str], weights: Sequence[float], rng: random.Random) -> Iterator[str]:
    cumulative = list(itertools.accumulate(weights))
    while True:
        yield rng.choices(adapters, cum_weights=cumulative)[0]


def _drifting(law: str, adapters: Sequence[str], seed: int, now: Callable[[], float]) -> Iterator[str]:
    _, period, inner = (*law.split(":", 2), "")[:3]
    try:
        seconds = float(period)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0) or not inner or inner.startswith(("drift", "round_robin")):
        raise _bad(law)
    ranks = choices(inner, [str(rank) for rank in range(len(adapters))], seed)
    return (adapters[(int(rank) + math.floor(now() / seconds)) % len(adapters)] for rank in ranks)


def _weights(law: str, adapters: Sequence[str]) -> list[float]:
    name, separator, argument = law.partition(":")
    count = len(adapters)
    if name == "uniform" and not separator:
        return [1.0] * count
    if name == "weights":
        weights = _from_file(Path(argument), adapters) if argument.endswith(".json") else _numbers(argument, law)
        if len(weights) != count:
            raise InvalidError(
                f"{law!r} has {len(weights)} weights for {count} adapters", reason="BAD_LAW", field="popularity"
            )
        if not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
            raise _bad(law)
        return weights
    if name not in ("zipf", "geometric", "power"):
        raise _bad(law)
    (number,) = _numbers(argument, law)
    if name == "zipf" and math.isfinite(number) and number >= 0:
        return [float((rank + 1) ** -number) for rank in range(count)]
    if name == "geometric" and 0 < number <= 1:
        return [float(number**rank) for rank in range(count)]
    if name == "power" and math.isfinite(number) and number > 0:
        # P(floor(n u^(1/A)) = i) for u uniform on 0 to 1: numpy's `power` distribution, cut into n parts.
        return [((rank + 1) / count) ** number - (rank / count) ** number for rank in range(count)]
    raise _bad(law)


def _numbers(text: str, law: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise _bad(law) from None


def _from_file(path: Path, adapters: Sequence[str]) -> list[float]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFoundError(f"no weights at {path}: {error.strerror}", field="popularity") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(content.get(name), int | float) for name in adapters):
        raise InvalidError(
            f"{path} is not a JSON object with a weight for each of {', '.join(adapters)}",
            reason="BAD_LAW",
            field="popularity",
        )
    return [float(content[name]) for name in adapters]


def _bad(law: str) -> InvalidError:
    return InvalidError(f"bad popularity law {law!r}: use {LAWS}", reason="BAD_LAW", field="popularity")
