"""Tables, figures and the page: measured values beside published ones, and honest where there are none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loradeck_bench.study.files import merged
from loradeck_bench.study.outcomes import Outcomes
from loradeck_bench.study.plan import Plan
from loradeck_bench.study.report import make_report, render, write_report
from loradeck_bench.study.results import shown
from loradeck_bench.study.state import State
from tests.bench.browser import find_browser, visit

from .conftest import REPORT, Tree, put

Planned = Callable[..., Plan]


def report_of(plan: Plan, failed: dict[str, str] | None = None) -> tuple[dict[str, Any], dict[str, str | None]]:
    report, pictures = make_report(plan, State(plan, Outcomes(plan.place.outcomes)), failed or {})
    return report, dict(pictures)


def test_cell_has_measured_value_interval_and_published_value(tree: Tree, planned: Planned) -> None:
    plan = planned(tree)
    put(plan, "evaluations/lora", REPORT)
    table = report_of(plan)[0]["tables"]["table-7"]
    cell = table["rows"][0]["cells"]["f1-score"]
    assert (cell["text"], cell["interval"]) == ("0.46", "0.20 to 0.90")
    assert (cell["published"], cell["published_text"]) == (0.67, "0.67")
    assert table["rows"][0]["cells"]["support"]["measured"] == 2
    assert any("Qwen2" in note for note in table["notes"]), "the publication's own remark is there"


def test_methods_are_those_of_metrics_and_not_what_a_command_calls_so(tree: Tree, planned: Planned) -> None:
    plan = planned(tree)
    put(plan, "evaluations/lora", REPORT)
    put(plan, "evaluations/tests", {"methods": [{"method": "lora", "batch_size": 8}]})
    assert report_of(plan)[0]["methods"] == {"accuracy": "counted"}


def test_cell_without_a_result_says_why(tree: Tree, planned: Planned) -> None:
    plan = planned(tree)
    row = report_of(plan)[0]["tables"]["table-7"]["rows"][1]
    assert row["cells"]["f1-score"]["measured"] is None
    assert row["cells"]["f1-score"]["why"] == "not done yet"
    assert row["differs"] == "of the full checkpoint"
    failed = report_of(plan, {"evaluations/full": "the server fell over"})[0]
    assert failed["tables"]["table-7"]["rows"][1]["cells"]["f1-score"]["why"] == "failed"
    steps = {step["step"]: step for step in failed["steps"]}
    assert (steps["evaluations/full"]["state"], steps["evaluations/full"]["why"]) == ("failed", "the server fell over")
    assert steps["evaluations/tests"]["why"] == "needs evaluations/full, which failed"


def test_picture_that_our_copy_lacks_is_said_to_be_lacking(tree: Tree, planned: Planned) -> None:
    plan = planned(tree)
    put(plan, "evaluations/lora", REPORT)
    report, pictures = report_of(plan)
    figure = report["figures"]["figure-2"]
    assert "published: not in our copy" in figure["notes"]
    assert figure["series"][0]["values"] == [0.5]
    assert figure["series"][0]["intervals"] == [[0.3, 0.7]]
    assert figure["series"][0]["published"] == [0.7], "Table 7 has the accuracy that the figure draws"
    assert str(pictures["figure-2"]).startswith("data:image/svg+xml")


def test_published_value_that_cannot_be_right_is_marked(tree: Tree, planned: Planned) -> None:
    tree["published"] = "alpaca"
    column = {"name": "Validation", "of": "evaluations/lora", "key": "accuracy"}
    tree["tables"] = [{"id": "results", "title": "r", "columns": [column], "rows": [{"name": "Token accuracy"}]}]
    tree["figures"] = []
    plan = planned(tree)
    report, pictures = report_of(plan)
    cell = report["tables"]["results"]["rows"][0]["cells"]["Validation"]
    assert cell["published_wrong"] is True
    assert any("cannot be right" in note for note in report["tables"]["results"]["notes"])
    assert 'class="published wrong">0.00861' in render(report, pictures)


def test_ratio_text_and_rows_by_entry(tree: Tree, planned: Planned) -> None:
    tree["tables"] = [
        {
            "id": "t",
            "title": "t",
            "columns": [{"name": "v"}],
            "rows": [
                {
                    "name": "ratio",
                    "cells": {"v": {"of": "runs/full", "key": "seconds", "over": "runs/lora/seconds"}},
                },
                {"name": "shape", "cells": {"v": {"text": "${bases/main/rows} x ${bases/main/hidden}"}}},
                {"name": "rank", "cells": {"v": {"of": "runs/lora", "key": "recipe/lora/rank"}}},
                {"name": "last", "cells": {"v": {"of": "runs/lora", "key": "loss_history/-1/loss"}}},
                {"name": "named after a model", "cells": {"v": {"of": "evaluations/lora", "key": "bert_score_f1"}}},
            ],
        },
        {
            "id": "e",
            "title": "e",
            "columns": [{"name": "p", "key": "p"}],
            "each": {
                "of": "evaluations/tests/comparisons",
                "name": "{metric} of {second}",
                "where": {"second": "full"},
            },
        },
    ]
    plan = planned(tree)
    put(plan, "runs/lora", {"seconds": 10.0, "loss_history": [{"loss": 3.0}, {"loss": 2.0}]})
    put(plan, "runs/full", {"seconds": 25.0})
    put(plan, "evaluations/lora", {"bert_score_f1:a/model": 0.7, "intervals": {"bert_score_f1:a/model": [0.6, 0.8]}})
    put(
        plan,
        "evaluations/tests",
        {
            "comparisons": [
                {"metric": "bleu", "second": second, "p": p} for second, p in (("lora", 0.5), ("full", 0.25))
            ]
        },
    )
    tables = report_of(plan)[0]["tables"]
    cells = {row["name"]: row["cells"]["v"] for row in tables["t"]["rows"]}
    assert cells["ratio"]["measured"] == 2.5
    assert cells["shape"]["measured"] == "4096 x 256"
    assert cells["rank"]["measured"] == 16
    assert cells["last"]["measured"] == 2.0
    assert (cells["named after a model"]["measured"], cells["named after a model"]["low"]) == (0.7, 0.6)
    assert [(row["name"], row["cells"]["p"]["measured"]) for row in tables["e"]["rows"]] == [("bleu of full", 0.25)]


def test_what_a_recipe_leaves_open_is_not_called_unmeasured(tree: Tree, planned: Planned) -> None:
    column = {"name": "v", "key": "recipe/max_length"}
    precision = {"name": "p", "key": "precision"}
    tree["tables"] = [
        {"id": "t", "title": "t", "columns": [column], "rows": [{"name": "a", "of": "runs/lora"}]},
        {"id": "u", "title": "u", "columns": [precision], "rows": [{"name": "b", "of": "evaluations/lora/report/AI"}]},
    ]
    plan = planned(tree)
    put(plan, "runs/lora", {})
    put(plan, "evaluations/lora", {"report": [{"name": "AI", "precision": None}]})
    tables = report_of(plan)[0]["tables"]
    assert tables["t"]["rows"][0]["cells"]["v"]["why"] == "not set"
    assert tables["u"]["rows"][0]["cells"]["p"]["why"] == ""


def test_curves_and_points_take_what_is_there(tree: Tree, planned: Planned) -> None:
    tree["figures"] = [
        {
            "id": "c",
            "title": "c",
            "kind": "curves",
            "series": [{"name": n, "of": f"runs/{n}"} for n in ("lora", "full")],
        },
        {
            "id": "p",
            "title": "p",
            "kind": "points",
            "series": [
                {
                    "name": "speed",
                    "points": [
                        {"of": "runs/lora", "x": "recipe/optimisation/batch_size", "y": "tokens_per_second"},
                        {"of": "runs/full", "x": 64, "y": "tokens_per_second"},
                    ],
                }
            ],
        },
        {"id": "a", "title": "a", "kind": "absent", "notes": ["cannot be made"]},
    ]
    plan = planned(tree)
    put(plan, "runs/lora", {"tokens_per_second": 9.0, "loss_history": [{"step": 1, "loss": 3.0}, {"step": 2}]})
    report, pictures = report_of(plan)
    lora, full = report["figures"]["c"]["series"]
    assert lora["points"] == [[1.0, 3.0]]
    assert (full["points"], full["why"]) == ([], "not done yet")
    assert report["figures"]["p"]["series"][0]["points"] == [[16.0, 9.0]]
    assert pictures["a"] is None
    assert "cannot be made" in render(report, pictures)


def test_page_asks_nothing_of_the_network_and_shows_no_markup_of_data(
    tree: Tree, planned: Planned, tmp_path: Path
) -> None:
    plan = planned(merged(tree, {"title": "<script>alert(1)</script>"}))
    put(plan, "evaluations/lora", REPORT, wall=6.0)
    page = write_report(*report_of(plan), tmp_path / "out")
    text = page.read_text()
    assert "<script" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "default-src 'none'" in text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"tables", "figures", "seconds"} <= set(report)
    assert report["seconds"] == 6.0


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium on the path")
def test_browser_opens_the_page_without_a_complaint_or_a_request(tree: Tree, planned: Planned, tmp_path: Path) -> None:
    plan = planned(tree)
    put(plan, "evaluations/lora", REPORT)
    seen = visit(write_report(*report_of(plan), tmp_path / "out"))
    assert (seen.complaints, seen.left, seen.broken_pictures) == ([], [], 0)
    assert len(seen.requests) >= 2, "the page and its picture"
    assert "not in our copy" in seen.text


@pytest.mark.parametrize(
    ("value", "show", "digits", "text"),
    [
        (None, "number", None, "–"),
        (0.12345, "number", 2, "0.12"),
        (1245184, "integer", None, "1,245,184"),
        (0.0014, "percent", 2, "0.14 %"),
        (2**31, "gib", None, "2.00 GiB"),
        (7200, "hours", None, "2.00"),
        (90, "minutes", None, "1.5"),
        (["q_proj", "v_proj"], None, None, "q_proj, v_proj"),
        ([], None, None, "none"),
        (0.0002, None, None, "0.0002"),
        (True, None, None, "yes"),
        (152064, None, None, "152,064"),
    ],
)
def test_values_are_shown_as_people_read_them(value: Any, show: Any, digits: int | None, text: str) -> None:
    assert shown(value, show, digits) == text
