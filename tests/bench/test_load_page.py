"""The page of a load test: whole and in part, in a browser with nothing but the file."""

import re
from pathlib import Path
from typing import Any

import pytest

from loradeck_bench.load.churn import Churn, Operation
from loradeck_bench.load.churn_account import account
from loradeck_bench.load.figures.objective import Objective
from loradeck_bench.load.figures.quality import Quality
from loradeck_bench.load.paired import FEWEST, Measure, judge
from loradeck_bench.load.plan import LoadPlan, Subject
from loradeck_bench.load.record import OK, RequestRecord
from loradeck_bench.load.run import Sent, summary_of
from loradeck_bench.load.saturation import sweep
from loradeck_bench.load.vitals import Vitals, client_of
from loradeck_bench.report.load_page import render_load, write_load_page
from tests.bench.browser import find_browser, visit
from tests.bench.load.simulated import PaperServer

ROWS = tuple({"context": "", "question": f"q{n}", "short_answer": f"the answer {n}"} for n in range(4))
SUBJECTS = {name: Subject(name, "short_qa", ROWS) for name in "ab"}


def records(count: int = 40) -> list[RequestRecord]:
    return [
        RequestRecord(
            number, "a" if number % 3 else "b", "short_qa", number % 4, number / 10, sent=number / 10 + 0.001,
            first=number / 10 + 0.02, end=number / 10 + 0.1 + (number % 7) / 50, chunks=[(number / 10 + 0.02, 1)],
            status=OK if number % 10 else "exhausted", reason="" if number % 10 else "<b>FULL", output_tokens=4,
            text=f"an answer {number % 4}", residency="hot", answered_by="a", revision=1 + number // 20, digest="d",
        )
        for number in range(count)
    ]  # fmt: skip


def load_summary() -> dict[str, Any]:
    plan = LoadPlan(SUBJECTS, 4.0, rate=10.0)
    sent = Sent(records(), [Vitals([0.001] * 100, 1.0, 4.0)])
    summary = summary_of(plan, sent, Objective({"ttft": 100.0, "latency": 150.0}))
    summary["quality"] = Quality(sent.records, SUBJECTS).describe(4.0)
    churn = Churn(None, None, ["publish"], 1.0, [], [Operation("publish", "a@prod", 2, 1.0, 1.2)])  # type: ignore[arg-type]
    return {**summary, "churn": account(churn, sent.records)}


@pytest.fixture(scope="module")
async def report() -> dict[str, Any]:
    def more(found: Any) -> dict[str, Any]:
        part = records()
        return {"client": client_of(part, [Vitals()]), "quality": Quality(part, SUBJECTS).headlines()}

    figures = {
        "latency_ms.p50": judge(Measure("latency_ms.p50", True), [100.0] * FEWEST, [120.0] * FEWEST),
        "accuracy": judge(Measure("accuracy", False, False), [0.5] * FEWEST, [0.5] * FEWEST),
    }
    tasks = {"a": "short_qa"}
    return {
        "title": "Load",
        "created": "2026-01-01 10:00",
        "load": load_summary(),
        "sweep": await sweep(PaperServer(20.0).trial, [10.0, 40.0], 20.0, 0, more=more),
        "goodput": {
            "objective": {"bounds_ms": {"latency": 100.0}, "attainment": 0.95}, "rate": 5.0, "bracketed": True,
            "trials": [
                {"rate": 5.0, "requests": 40, "attained": 0.97, "held": True},
                {"rate": 10.0, "requests": 80, "attained": 0.5, "held": False},
            ],
        },
        "ab": {
            "alternations": 9, "rule": "the rule", "figures": figures, "client": {"bottleneck": False, "verdict": "v"},
            "sides": {"a": {"server": "s:1", "tasks": tasks}, "b": {"server": "s:2", "tasks": tasks}},
        },
    }  # fmt: skip


def test_page_says_what_was_measured(report: dict[str, Any]) -> None:
    page = render_load(report)
    load = report["load"]
    for text in (
        f"{load['latency_ms']['p99']:.1f}", f"{load['quality']['per_adapter']['a']['chrf']:.3f}", "2 &lt;b&gt;FULL",
        "not the bottleneck", "Keeps up with 10.00 requests/s, saturated at 40.00", "95 % of requests keep latency",
        "a is better", "no difference", "0 of 36 replies came from a wrong revision",
    ):  # fmt: skip
        assert text in page, text
    assert "<b>FULL" not in page


@pytest.mark.parametrize("part", ["load", "sweep", "goodput", "ab"])
def test_parts_stand_alone(report: dict[str, Any], part: str) -> None:
    page = render_load({"title": "t", "created": "now", part: report[part]})
    assert len(re.findall(r"<h2>", page)) == 1
    assert re.search(r'src="data:image/svg', page)


def test_broken_run_without_any_answer_still_makes_a_page() -> None:
    plan = LoadPlan(SUBJECTS, 4.0, rate=10.0)
    nothing = summary_of(plan, Sent([], [Vitals()], "interrupted after 0.1 of 4 s"))
    page = render_load({"title": "t", "created": "now", "load": nothing})
    assert "Broken off: interrupted after 0.1 of 4 s." in page
    gone = [RequestRecord(0, "a", "short_qa", 0, 0.0, sent=0.0, end=0.1, status="unavailable", reason="NOT_REACHABLE")]
    page = render_load({"title": "t", "created": "now", "load": summary_of(plan, Sent(gone, [Vitals()]))})
    assert "1 NOT_REACHABLE" in page


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium on the path")
def test_browser_opens_the_page_without_a_complaint_or_a_request(report: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "load.html"
    write_load_page({name: report[name] for name in ("load", "sweep", "goodput", "ab")}, "Load", page)
    seen = visit(page)
    assert seen.complaints == []
    assert seen.left == []
    assert seen.broken_pictures == 0
    assert len(seen.requests) >= 6  # the page and its pictures
    assert "Quality over the load" in seen.text


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium on the path")
def test_browser_would_tell(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/picture.png'><script>console.error('oops')</script>")
    seen = visit(page)
    assert seen.left == ["http://127.0.0.1:9/picture.png"]
    assert seen.broken_pictures == 1
    assert any("oops" in complaint for complaint in seen.complaints)
