"""Sweep and goodput search against a server on paper, whose limits are known."""

import asyncio
import math
from collections.abc import Sequence

import pytest

from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.goodput import search
from loradeck_bench.load.record import OK, RequestRecord
from loradeck_bench.load.saturation import judge_step, sweep
from loradeck_registry.errors import InvalidError
from tests.bench.load.simulated import PaperServer


def record(intended: float, end: float | None, **more: float) -> RequestRecord:
    found = RequestRecord(0, "a", "long_qa", 0, intended, sent=intended, end=end)
    found.status = OK if end is not None else "unfinished"
    found.first, found.output_tokens = more.get("first"), int(more.get("tokens", 0))
    return found


@pytest.mark.parametrize("capacity", [10.0, 40.0])
async def test_sweep_finds_where_the_queue_begins_to_grow(capacity: float) -> None:
    result = await sweep(PaperServer(capacity).trial, [capacity * share for share in (0.5, 0.8, 1.3, 2)], 20.0, 0)
    assert result["sustained_rate"] == pytest.approx(0.8 * capacity)
    assert result["saturated_rate"] == pytest.approx(1.3 * capacity)
    assert result["peak_per_second"] == pytest.approx(capacity, rel=0.05)
    assert len(result["steps"]) == 3  # the sweep ends with the first saturated step
    assert "the queue grew by" in result["steps"][-1]["saturated"]


async def test_server_that_refuses_is_saturated_without_a_queue() -> None:
    result = await sweep(PaperServer(20.0, patience=0.2).trial, [10.0, 40.0], 20.0, 0)
    assert result["saturated_rate"] == 40.0
    assert "requests failed" in result["steps"][-1]["saturated"]


async def test_slow_answers_alone_are_no_saturation() -> None:
    """A latency of five seconds that does not grow is a slow server, not a full one."""
    slow = [record(number / 10, number / 10 + 5) for number in range(200)]
    step = judge_step(slow, 10.0, 20.0)
    assert step.saturated == ""
    assert step.waiting == pytest.approx(50, abs=1)
    assert judge_step(slow[:12], 0.6, 20.0).saturated == ""  # too few to say


async def test_rates_that_do_not_rise_are_refused() -> None:
    with pytest.raises(InvalidError, match="must rise"):
        await sweep(PaperServer(10.0).trial, [2.0, 2.0], 20.0, 0)


async def test_interrupted_sweep_keeps_its_whole_steps() -> None:
    server = PaperServer(10.0)

    async def trial(rate: float, seed: int) -> Sequence[RequestRecord]:
        if rate > 2:
            raise asyncio.CancelledError
        return await server.trial(rate, seed)

    result = await sweep(trial, [1.0, 2.0, 3.0], 20.0, 0)
    assert (result["sustained_rate"], result["unfinished"]) == (2.0, "interrupted after 2 steps")


def exact_goodput(capacity: float, bound: float, attainment: float) -> float:
    """The rate at which a queue with Poisson arrivals and a fixed service time lets `attainment` of requests end within
    `bound` seconds: found by simulation of a long run."""
    low, high = 0.1 * capacity, capacity
    for _ in range(8):
        middle = (low + high) / 2
        server = PaperServer(capacity, seconds=8_000 / capacity)
        records = asyncio.run(server.trial(middle, 99))
        held = Objective({"latency": bound * 1000}, attainment).attained(records) >= attainment
        low, high = (middle, high) if held else (low, middle)
    return low


def test_goodput_search_finds_the_rate_that_holds_the_objective() -> None:
    truth = exact_goodput(50.0, 0.1, 0.95)
    assert 0.5 * 50 < truth < 0.95 * 50
    for start in (4.0, 150.0):
        server = PaperServer(50.0, seconds=60.0)
        result = asyncio.run(search(server.trial, Objective({"latency": 100.0}), start=start, seed=1))
        assert result["rate"] == pytest.approx(truth, rel=0.15)
        assert result["bracketed"]
        assert len(server.rates) <= 20
        assert result["trials"][-1]["rate"] == result["rate"]  # confirmed with other arrivals
        assert result["trials"][-1]["held"]
        assert result["goodput_per_second"] == pytest.approx(result["rate"] * result["trials"][-1]["attained"])


def test_objective_that_cannot_be_held_gives_no_rate() -> None:
    result = asyncio.run(search(PaperServer(50.0).trial, Objective({"latency": 1.0}), start=8, seed=0, most=8))
    assert (result["rate"], result["goodput_per_second"], len(result["trials"])) == (None, None, 8)


def test_server_without_limit_is_not_bracketed() -> None:
    result = asyncio.run(
        search(PaperServer(1e9, seconds=10.0).trial, Objective({"latency": 100}), start=1, seed=0, most=5)
    )
    assert not result["bracketed"]
    assert result["rate"] == 16.0


def test_objective_is_met_by_single_requests() -> None:
    objective = Objective.parse(["ttft=200", "tpot=50", "latency=1000"], 0.5)
    good = record(0.0, 0.9, first=0.15, tokens=16)  # 50 ms for each of 15 further tokens
    late = record(0.0, 0.9, first=0.25, tokens=16)
    slow = record(0.0, 0.95, first=0.15, tokens=11)
    failed = record(0.0, None)
    assert [objective.met_by(one) for one in (good, late, slow, failed)] == [True, False, False, False]
    assert objective.attained([good, late, slow, failed]) == 0.25
    whole = Objective.parse(["ttft=200"])
    assert whole.met_by(record(0.0, 0.15))  # not streamed: its end is its beginning
    assert not whole.met_by(record(0.0, 0.25))


@pytest.mark.parametrize("text", ["ttft", "ttft=", "ttft=-1", "speed=3", f"tpot={math.nan}"])
def test_bad_objective_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="bad objective"):
        Objective.parse([text])


async def test_rate_that_held_by_luck_is_not_the_answer_and_the_search_goes_on_below_it() -> None:
    """Every rate up to 20 holds; 22 to 26 held once and never again."""
    lucky: set[float] = set()

    async def trial(rate: float, seed: int) -> Sequence[RequestRecord]:
        good = rate <= 20 or (rate <= 26 and rate not in lucky)
        if rate > 20:
            lucky.add(rate)
        return [record(number / rate, number / rate + (0.05 if good else 0.5)) for number in range(40)]

    result = await search(trial, Objective({"latency": 100.0}), start=6.0, seed=0, precision=0.05)
    assert result["rate"] == pytest.approx(20, rel=0.08)
    assert result["trials"][-1]["held"]
