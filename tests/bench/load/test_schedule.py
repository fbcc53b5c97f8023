"""Arrival times and popularity laws."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from loradeck_bench.load.shape.popularity import choices, shares
from loradeck_bench.load.shape.profile import RateProfile
from loradeck_bench.load.shape.schedule import arrival_times
from loradeck_registry.errors import InvalidError, NotFoundError

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


@pytest.mark.parametrize("variation", [0.3, 1.0, 4.0])
def test_gamma_gaps_have_the_rate_and_the_variation(variation: float) -> None:
    times = arrival_times(100, 200.0, f"gamma:{variation}", 7)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(20_000, rel=0.1)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.1)


@pytest.mark.parametrize("law", ["gamma", "gamma:0", "gamma:nan", "uniform", "poisson:1"])
def test_unknown_arrivals_are_refused(law: str) -> None:
    with pytest.raises(InvalidError, match="bad arrivals"):
        arrival_times(1, 1.0, law, 0)


@pytest.mark.parametrize("law", ["poisson", "constant", "gamma:2"])
def test_ramp_rises_evenly(law: str) -> None:
    times = np.array(arrival_times(RateProfile.parse("10:190", 100.0), 100.0, law, 3))
    assert len(times) == pytest.approx(10_000, rel=0.06)
    counts, _ = np.histogram(times, bins=4, range=(0, 100))
    # Rates in the middle of the quarters: 32.5, 77.5, 122.5, 167.5.
    assert counts == pytest.approx([812, 1938, 3062, 4188], rel=0.12)


def test_ramp_of_even_arrivals_is_exact() -> None:
    times = arrival_times(RateProfile.parse("0:2", 4.0), 4.0, "constant", 0)
    assert times == pytest.approx([0.0, 2.0, np.sqrt(8), np.sqrt(12)])  # t^2 / 4 requests until t


def test_ramp_may_come_down_again() -> None:
    times = np.array(arrival_times(RateProfile.parse("0:100:0", 10.0), 10.0, "constant", 0))
    assert len(times) == 500
    assert times[:250] == pytest.approx((10 - times[-250:])[::-1], abs=0.35)


def test_steps_are_of_equal_length() -> None:
    times = np.array(arrival_times(RateProfile.parse("10,30,20", 30.0), 30.0, "constant", 0))
    assert np.histogram(times, bins=3, range=(0, 30))[0].tolist() == [100, 300, 200]


@pytest.mark.parametrize("text", ["5", "a:b", "1:2,3", "-1:5", "0,5", "nan:1", ""])
def test_bad_rates_are_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        RateProfile.parse(text, 10.0)


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
        ("geometric:0.5", [8, 4, 2, 1]),
        ("geometric:1", [1, 1, 1, 1]),
        ("power:1", [1, 1, 1, 1]),
        ("power:0.5", [0.5, 0.2071, 0.1589, 0.134]),
    ],
)
def test_realised_shares_follow_the_law(law: str, weights: list[float]) -> None:
    realised = shares(take(law, 20_000))
    for adapter, weight in zip(ADAPTERS, weights, strict=True):
        assert realised.get(adapter, 0.0) == pytest.approx(weight / sum(weights), abs=0.02)


def test_power_law_is_that_of_s_lora() -> None:
    """Its trace takes adapter floor(n * X), X of numpy's power distribution."""
    draws = (np.random.default_rng(0).power(0.3, 200_000) * len(ADAPTERS)).astype(int)
    theirs = np.bincount(draws, minlength=len(ADAPTERS)) / len(draws)
    realised = shares(take("power:0.3", 50_000))
    assert [realised[name] for name in ADAPTERS] == pytest.approx(theirs.tolist(), abs=0.01)


def test_weights_come_from_a_file_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text('{"d": 3, "a": 1, "b": 0, "c": 0, "other": 5}')
    realised = shares(take(f"weights:{path}", 20_000))
    assert realised == pytest.approx({"d": 0.75, "a": 0.25}, abs=0.02)
    path.write_text('{"a": 1}')
    with pytest.raises(InvalidError, match="weight for each of a, b, c, d"):
        take(f"weights:{path}", 1)
    with pytest.raises(NotFoundError, match="no weights at"):
        take(f"weights:{path.with_name('none.json')}", 1)


def test_drift_moves_the_ranking_with_time() -> None:
    moments = iter((0.0, 9.9, 10.0, 25.0, 39.0, 40.0))
    chosen = choices("drift:10:weights:1,0,0,0", ADAPTERS, 0, lambda: next(moments))
    assert list(itertools.islice(chosen, 6)) == ["a", "a", "b", "c", "d", "a"]


def test_round_robin_is_exact() -> None:
    assert take("round_robin", 6) == ["a", "b", "c", "d", "a", "b"]
    assert shares(take("round_robin", 8)) == dict.fromkeys(ADAPTERS, 0.25)


@pytest.mark.parametrize(
    "law",
    [
        "zipf",
        "zipf:-1",
        "zipf:nan",
        "weights:1,2",
        "weights:0,0,0,0",
        "pareto:1",
        "uniform:2",
        "geometric:0",
        "geometric:2",
        "power:0",
        "drift:5",
        "drift:0:uniform",
        "drift:x:uniform",
        "drift:5:round_robin",
        "drift:5:pareto",
    ],
)
def test_bad_law_is_refused(law: str) -> None:
    with pytest.raises(InvalidError, match=r"popularity law|weights for 4 adapters"):
        take(law, 1)


@pytest.mark.parametrize(("rate", "duration"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_bad_rate_is_refused(rate: float, duration: float) -> None:
    with pytest.raises(InvalidError):
        arrival_times(rate, duration, "poisson", 0)
