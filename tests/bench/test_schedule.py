"""Arrival times and popularity laws."""

import itertools

import numpy as np
import pytest

from loradeck_bench.load.popularity import choices, shares
from loradeck_bench.load.schedule import arrival_times
from loradeck_registry.errors import InvalidError

ADAPTERS = ["a", "b", "c", "d"]


def take(law: str, count: int, seed: int = 0) -> list[str]:
    return list(itertools.islice(choices(law, ADAPTERS, seed), count))


def test_constant_rate_is_evenly_spaced_and_stays_below_the_duration() -> None:
    times = arrival_times(10, 1.0, "constant", 0)
    assert times == pytest.approx([i / 10 for i in range(10)])
    assert arrival_times(3, 1.0, "constant", 0) == pytest.approx([0, 1 / 3, 2 / 3])


def test_poisson_has_the_rate_and_exponential_gaps() -> None:
    times = arrival_times(50, 200.0, "poisson", 7)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(10_000, rel=0.04)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)
    assert times[-1] < 200.0


def test_the_same_seed_gives_the_same_times_and_adapters() -> None:
    assert arrival_times(5, 10.0, "poisson", 1) == arrival_times(5, 10.0, "poisson", 1)
    assert arrival_times(5, 10.0, "poisson", 1) != arrival_times(5, 10.0, "poisson", 2)
    assert take("zipf:1", 50, seed=1) == take("zipf:1", 50, seed=1)
    assert take("zipf:1", 50, seed=1) != take("zipf:1", 50, seed=2)


@pytest.mark.parametrize(
    ("law", "weights"),
    [
        ("uniform", [1, 1, 1, 1]),
        ("zipf:1", [1, 1 / 2, 1 / 3, 1 / 4]),
        ("zipf:2", [1, 1 / 4, 1 / 9, 1 / 16]),
        ("zipf:0", [1, 1, 1, 1]),
        ("weights:8,1,1,0", [8, 1, 1, 0]),
    ],
)
def test_realised_shares_follow_the_law(law: str, weights: list[float]) -> None:
    realised = shares(take(law, 20_000))
    for adapter, weight in zip(ADAPTERS, weights, strict=True):
        assert realised.get(adapter, 0.0) == pytest.approx(weight / sum(weights), abs=0.02)


def test_round_robin_is_exact() -> None:
    assert take("round_robin", 6) == ["a", "b", "c", "d", "a", "b"]
    assert shares(take("round_robin", 8)) == dict.fromkeys(ADAPTERS, 0.25)


@pytest.mark.parametrize(
    "law", ["zipf", "zipf:-1", "zipf:nan", "weights:1,2", "weights:0,0,0,0", "pareto:1", "uniform:2"]
)
def test_bad_law_is_refused(law: str) -> None:
    with pytest.raises(InvalidError, match=r"popularity law|weights for 4 adapters"):
        take(law, 1)


@pytest.mark.parametrize(("rate", "duration"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_bad_rate_is_refused(rate: float, duration: float) -> None:
    with pytest.raises(InvalidError):
        arrival_times(rate, duration, "poisson", 0)
