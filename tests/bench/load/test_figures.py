"""Figures of records: intervals of percentiles, times between tokens, goodput, fairness, windows, the flat table."""

import csv
import io

import numpy as np
import pytest

from loradeck_bench.load.figures.fairness import fairness, jain
from loradeck_bench.load.figures.flat import COLUMNS, write_csv
from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.figures.over_time import over_time
from loradeck_bench.load.figures.spread import grouped_spread, spread
from loradeck_bench.load.figures.summary import summarise
from loradeck_bench.load.record import OK, UNFINISHED, RequestRecord


def record(
    index: int, seconds: float | None, adapter: str = "a", task: str = "long_qa", **more: object
) -> RequestRecord:
    found = RequestRecord(index, adapter, task, index, index / 10, sent=index / 10)
    if seconds is not None:
        found.status, found.end = OK, found.intended + seconds
    for name, value in more.items():
        setattr(found, name, value)
    return found


def test_intervals_are_those_of_a_bootstrap_that_draws_every_sample() -> None:
    rng = np.random.default_rng(3)
    values = rng.lognormal(0, 1, 300)
    found = spread(values)
    assert found is not None
    drawn = np.percentile(rng.choice(values, (20_000, 300)), (50, 90, 99), axis=1) * 1000
    for mark, row in zip(("p50", "p90", "p99"), drawn, strict=True):
        low, high = np.percentile(row, (2.5, 97.5))
        assert found["intervals"][mark] == [pytest.approx(low, rel=0.03), pytest.approx(high, rel=0.03)]
    alone = grouped_spread([[value] for value in values])
    assert alone is not None
    assert alone["intervals"]["p50"] == pytest.approx(found["intervals"]["p50"], rel=0.05)


def test_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        found = spread(rng.exponential(size=40))
        assert found is not None
        low, high = found["intervals"]["p50"]
        hits += low <= 1000 * np.log(2) <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_tokens_of_one_request_are_no_independent_samples() -> None:
    """Forty tokens of each of five requests, all alike within a request: as uncertain as five values."""
    groups = [[0.01 * number] * 40 for number in range(1, 6)]
    together = grouped_spread(groups)
    apart = spread([gap for group in groups for gap in group])
    assert together is not None
    assert apart is not None
    assert together["count"] == apart["count"] == 200
    width = [one["intervals"]["p50"][1] - one["intervals"]["p50"][0] for one in (together, apart)]
    assert width[0] >= 3 * max(width[1], 1.0)


def test_few_values_have_no_or_no_wrong_interval() -> None:
    one = spread([0.5])
    assert one is not None
    assert "intervals" not in one
    two = spread([0.5, 0.7])
    assert two is not None
    assert 500 <= two["intervals"]["p99"][0] <= two["intervals"]["p99"][1] <= 700
    assert grouped_spread([]) is None


def test_tokens_of_a_chunk_share_the_time_since_the_chunk_before() -> None:
    found = record(0, 1.0, chunks=[(0.2, 3), (0.3, 0), (0.6, 2), (0.7, 1)])
    assert found.token_gaps == pytest.approx([0.2, 0.2, 0.1])
    assert found.last == 0.7
    assert record(0, 1.0).token_gaps == []


def test_goodput_counts_requests_within_the_objective() -> None:
    records = [record(number, 0.1 if number < 7 else 0.9) for number in range(10)]
    summary = summarise(records, Objective({"latency": 200.0}))
    assert summary["attained"] == pytest.approx(0.7)
    assert summary["goodput_per_second"] == pytest.approx(7 / summary["seconds"])
    assert summary["per_adapter"]["a"]["attained"] == pytest.approx(0.7)
    assert "attained" not in summarise(records)


def test_jain_is_one_for_equals_and_one_by_n_for_a_winner() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([0, 0]) is None


def test_worst_adapter_is_that_with_fewest_answers_then_slowest_for_its_task() -> None:
    failed = record(9, None, "b", status="exhausted", end=1.0)
    records = [record(0, 0.1), record(1, 0.1), record(2, 0.3, "b"), failed, record(4, 5.0, "c", "generate")]
    found = fairness(records, ["a", "b", "c"], "(base)")
    assert found["worst"]["adapter"] == "b"
    assert found["per_adapter"]["b"]["answered"] == 0.5
    assert found["per_adapter"]["c"]["slowdown"] == pytest.approx(1)  # the only one of its task
    equal = fairness([r for r in records if r.ok], ["a", "b", "c"], "(base)")
    assert equal["worst"]["adapter"] == "b"
    assert equal["per_adapter"]["b"]["slowdown"] == pytest.approx(0.3 / (0.5 / 3))
    assert equal["jain_answered"] == pytest.approx(1)
    assert equal["jain_slowdown"] < 0.95


def test_requests_under_way_at_a_break_are_neither_answered_nor_failed() -> None:
    records = [record(0, 0.1), record(1, None)]
    assert records[1].status == UNFINISHED
    summary = summarise(records)
    assert (summary["ok"], summary["failed"], summary["cut_off"], summary["errors"]) == (1, 0, 1, {})
    assert summary["fairness"]["per_adapter"]["a"]["answered"] == 1


def test_windows_count_sends_and_answers_where_they_were() -> None:
    records = [record(number, 0.55, output_tokens=4) for number in range(10)]  # sent over 1 s, answered 0.55 s later
    windows = over_time(records, 1.0)
    assert [window["requests"] for window in windows] == [1] * 10
    assert [round(window["answered_per_second"] / 10) for window in windows] == [0] * 5 + [1] * 5
    assert windows[-1]["output_tokens_per_second"] == pytest.approx(40)


def test_flat_table_has_every_group_and_nothing_beside_its_columns() -> None:
    records = [record(number, 0.1, "ab"[number % 2], residency="hot") for number in range(10)]
    summary = {**summarise(records, Objective({"latency": 200.0})), "over_time": over_time(records, 1.0)}
    out = io.StringIO()
    write_csv(summary, out)
    lines = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert tuple(lines[0]) == COLUMNS
    assert {(line["group"], line["name"]) for line in lines} >= {("all", ""), ("adapter", "b"), ("residency", "hot")}
    assert sum(line["group"] == "seconds" for line in lines) == 10
    assert float(lines[0]["latency_ms.p50"]) == pytest.approx(100)
    assert float(lines[0]["latency_ms.p50.low"]) == pytest.approx(100)
    assert float(lines[0]["attained"]) == 1
