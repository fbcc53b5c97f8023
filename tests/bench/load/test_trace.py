"""Replay of recorded traces."""

import statistics
from pathlib import Path

import pytest

from loradeck_bench.load.plan import LoadPlan, Subject
from loradeck_bench.load.shape.trace import Trace, TraceRow, read_trace
from loradeck_registry.errors import InvalidError, NotFoundError

SHARED = Path(__file__).parents[4] / "shared" / "data" / "azure_llm_2023"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
ROWS = tuple({"context": "", "question": "x" * length, "short_answer": "y"} for length in (30, 10, 20, 40))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_times_are_kept_and_bad_rows_are_counted(tmp_path: Path) -> None:
    trace = read_trace(
        write(
            tmp_path / "t.csv",
            HEADER + "2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:03.9799600,4808,10\nnever,1,1\n"
            "2023-11-16 18:17:05,0,1\n2023-11-16 18:17:05,many,1\n2023-11-16 18:17:05\n2023-11-16 18:17:05,5,-1\n",
        )
    )
    assert [row.prompt_tokens for row in trace.rows] == [4808, 3180]
    assert [row.time for row in trace.rows] == pytest.approx([0.0, 0.052])
    assert trace.skipped == 5


def test_speed_and_duration_cut_the_trace() -> None:
    trace = Trace("t", tuple(TraceRow(float(second), 10, 5) for second in range(10)), speed=2.0)
    assert [time for time, _ in trace.scheduled(2.0)] == [0.0, 0.5, 1.0, 1.5]


def test_requests_are_as_long_as_those_of_the_trace() -> None:
    rows = (TraceRow(0.0, 100, 7), TraceRow(1.0, 400, 100), TraceRow(2.0, 200, 0), TraceRow(3.0, 300, 3))
    subject = Subject("a", "short_qa", ROWS)
    plan = LoadPlan({"a": subject}, 10.0, trace=Trace("t", rows, token_scale=0.5))
    planned = plan.scheduled()
    assert [record.intended for record in planned] == [0.0, 1.0, 2.0, 3.0]
    assert [len(ROWS[record.row]["question"]) for record in planned] == [10, 40, 20, 30]  # the same ranks
    assert [record.max_tokens for record in planned] == [4, 50, 1, 2]
    described = plan.describe()["trace"]
    assert (described["rows"], described["token_scale"]) == (4, 0.5)


def test_drifting_popularity_follows_the_times_of_the_schedule() -> None:
    subjects = {name: Subject(name, "short_qa", ROWS) for name in "abc"}
    plan = LoadPlan(subjects, 9.0, rate=1.0, arrivals="constant", popularity="drift:3:weights:1,0,0")
    assert "".join(record.adapter for record in plan.scheduled()) == "aaabbbccc"


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "no column TIMESTAMP"), (HEADER, "no good row of 0"), (HEADER + "x,y,z\n", "no good row of 1")],
)
def test_useless_trace_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        read_trace(write(tmp_path / "t.csv", text))
    with pytest.raises(NotFoundError, match="no trace at"):
        read_trace(tmp_path / "none.csv")


def test_duration_without_any_request_is_refused() -> None:
    plan = LoadPlan({"a": Subject("a", "short_qa", ROWS)}, 0.01, rate=0.5, seed=1)
    with pytest.raises(InvalidError, match="no request falls into the duration"):
        plan.scheduled()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs Azure's traces, which the project does not ship")
@pytest.mark.parametrize(
    ("name", "rows", "seconds", "variation"), [("code", 8819, 3436, 13.2), ("conv", 19366, 3502, 1.09)]
)
def test_azure_traces_are_read_whole(name: str, rows: int, seconds: float, variation: float) -> None:
    trace = read_trace(SHARED / f"AzureLLMInferenceTrace_{name}.csv")
    assert (len(trace.rows), trace.skipped) == (rows, 0)
    assert trace.rows[-1].time == pytest.approx(seconds, abs=1)
    gaps = [b.time - a.time for a, b in zip(trace.rows, trace.rows[1:], strict=False)]
    assert statistics.pstdev(gaps) / statistics.mean(gaps) == pytest.approx(variation, rel=0.01)
