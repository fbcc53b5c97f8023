"""The judge steps of a study against a real HTTP server that refuses, says nothing of use, and breaks off."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loradeck_bench.evaluation.offline import score_rows
from loradeck_bench.output import write_json
from loradeck_bench.study.outcomes import Outcomes
from loradeck_bench.study.plan import Judge, Plan
from loradeck_bench.study.runner import StudyFailedError, run_study
from loradeck_bench.study.state import State
from tests.bench.evaluation.judge_server import JudgeServer, judge_server

from .conftest import Tree, put

ROWS = 24
BAD, GOOD = "the wrong thing", "the right thing"


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server() as running:
        yield running


def grade(messages: list[dict[str, str]]) -> str:
    """1 for the good answer, 0.25 for the bad one; nothing that could be read for row 5."""
    text = messages[1]["content"]
    if "row 5?" in text:
        return "I would rather not say."
    return f"Reasons.\nScore: {1 if GOOD in text.partition('Answer:')[2] else 0.25}"


@pytest.fixture
def judged(tree: Tree) -> Tree:
    """Two evaluations of answers with a judge each, and a test between the judges' scores; nothing to train is left."""
    served = {"kind": "served", "server": "main", "task": "generate", "data": "texts"}
    tree["evaluations"] = {
        "bad": {**served, "of": "lora"},
        "good": {**served, "of": "full", "server": "full"},
        "judge-bad": {"kind": "judge", "of": "bad"},
        "judge-good": {"kind": "judge", "of": "good", "options": ["--concurrency", "1", "--merge", "both=sums,code"]},
    }
    tree["tables"] = [
        {
            "id": "table-1",
            "title": "judge",
            "columns": [{"name": "score", "key": "judge_macro", "show": "number"}],
            "rows": [{"name": name, "of": f"evaluations/judge-{name}"} for name in ("bad", "good")],
        }
    ]
    del tree["figures"], tree["runs"]["on-full"], tree["published"]
    return tree


def answered(plan: Plan, tmp_path: Path) -> None:
    """Keep all steps but the judges' as done, with the answers that the evaluations would have left."""
    for step in plan.steps.values():
        if "judge" in step.id:
            continue
        put(plan, step.id, {"reference": f"{step.name}@sha256:{'0' * 64}", "digest": "sha256:" + "0" * 64})
        if not step.id.startswith("evaluations/"):
            continue
        data = tmp_path / f"{step.name}.jsonl"
        answer = GOOD if step.name == "good" else BAD
        rows = [
            {"prompt": f"What, row {n}?", "reference": GOOD, "answer": answer, "category": "sums" if n % 2 else "code"}
            for n in range(ROWS)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        result = score_rows(str(data), ["prompt=prompt", "category=category"], None, step.name)
        file = plan.place.answers(step.name, step.digest)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(result, str(file))


def run(plan: Plan) -> dict[str, Any]:
    report, page = run_study(plan, Console(file=io.StringIO()))
    assert page.is_file()
    return report


def test_judge_steps_survive_refusals_bad_replies_and_an_outage(
    judged: Tree, planned: Callable[..., Plan], server: JudgeServer, tmp_path: Path
) -> None:
    plan = planned(judged, judge=Judge(server.url, "grader"))
    answered(plan, tmp_path)

    def reply(messages: list[dict[str, str]]) -> str:
        if GOOD in messages[1]["content"].partition("Answer:")[2] and "row 9?" in messages[1]["content"]:
            server.always = 401  # the endpoint refuses everything from here on
        return grade(messages)

    server.reply, server.statuses = reply, [200, 429, 503, 429]
    with pytest.raises(StudyFailedError, match=r"the judge failed 8 times in a row, after 18 of 24 questions"):
        run(plan)
    report = json.loads((plan.place.root / "report.json").read_text())
    steps = {step["step"]: step for step in report["steps"]}
    assert steps["evaluations/judge-bad"]["left_out"] == "1 replies not parsed"
    assert steps["evaluations/judge-good"]["state"] == "failed"
    cells = {row["name"]: row["cells"]["score"] for row in report["tables"]["table-1"]["rows"]}
    assert cells["bad"]["measured"] == pytest.approx(0.25)
    assert cells["good"]["measured"] is None
    assert cells["good"]["why"] == "failed"
    assert "left out: 1 replies not parsed" in (plan.place.root / "report.html").read_text()

    server.always, server.reply = None, grade
    asked = len(server.requests)
    report = run(plan)
    assert len(server.requests) - asked == ROWS - 10, "what the judge had said before was kept"
    good = Outcomes(plan.place.outcomes).get("evaluations/judge-good", plan.steps["evaluations/judge-good"].digest)
    assert good is not None
    assert (good.result["answered"], good.result["not_parsed"], good.result["failed"]) == (ROWS - 1, 1, 0)
    assert good.result["requests"] == {"sent": ROWS - 10, "from_cache": 10, "retried": 0}
    assert list(good.result["by_category"]) == ["both"]
    assert "judge grader at http://127.0.0.1" in report["methods"]["judge_macro"]
    assert re.search(r"temperature 0; 512 tokens", report["methods"]["judge_macro"])
    assert report["tables"]["table-1"]["rows"][1]["cells"]["score"]["measured"] == pytest.approx(1.0)

    other = planned(judged, judge=Judge(server.url, "another"))
    left = [one.step.id for one in State(other, Outcomes(other.place.outcomes)).left()]
    assert left == ["evaluations/judge-bad", "evaluations/judge-good"], "another judge is another measurement"


def test_judge_that_is_not_there_fails_its_steps_in_one_line_each(
    judged: Tree, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    judged["evaluations"]["judge-bad"]["options"] = ["--retries", "0"]
    del judged["evaluations"]["judge-good"], judged["tables"]
    plan = planned(judged, judge=Judge("http://127.0.0.1:9/v1", "grader"))
    answered(plan, tmp_path)
    with pytest.raises(StudyFailedError, match=r"no judge answers at http://127\.0\.0\.1:9/v1"):
        run(plan)
    report = json.loads((plan.place.root / "report.json").read_text())
    assert "\n" not in next(step["why"] for step in report["steps"] if step["state"] == "failed")
