"""The report renders whole and in part, and asks nothing of the network."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from loradeck_bench.evaluation.answers import evaluate_answers
from loradeck_bench.evaluation.classification import evaluate_classification
from loradeck_bench.load.figures.summary import summarise
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.report.html import render, write_report
from loradeck_bench.swap import Moments, Target, account

LABELS = ["AI", "Business", "Telecom"]


def classification(hits: int) -> dict[str, Any]:
    gold = LABELS * 10
    predicted = [label if index < hits else "AI" for index, label in enumerate(gold)]
    return {**evaluate_classification(gold, predicted, LABELS), "rows": 30, "failed": 0, "source": "test rows"}


def answers(text: str) -> dict[str, Any]:
    return {**evaluate_answers([text, "b c"], ["a b c", "b c d"]), "rows": 2, "failed": 0}


def records() -> list[RequestRecord]:
    return [
        RequestRecord(
            index=i, adapter="qa-long" if i % 2 else "clf@prod", task="long_qa", row=i, intended=i / 10, sent=i / 10,
            first=i / 10 + 0.02 if i % 2 else None, end=i / 10 + 0.1, status="ok", output_tokens=9 if i % 2 else 0,
            revision=1 if i < 10 else 2, digest="sha256:" + "ab"[i >= 10] * 64, residency="hot",
        )
        for i in range(20)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    swap = account(
        records(), Target(1, "sha256:" + "a" * 64), Target(2, "sha256:" + "b" * 64), Moments(0.9, 0.95, 1.0), 0.2
    )
    timeline = [{"sent": r.sent, "latency_ms": 100.0, "revision": r.revision, "ok": r.ok} for r in records()]
    return {
        "title": "loradeck demo <script>alert(1)</script>",
        "created": "2026-01-01 10:00",
        "seconds": 600.0,
        "base": "pocket",
        "machine": {"cpu": "a processor", "cores": 2, "memory_bytes": 24e9},
        "versions": {"loradeck": "0.1.0", "torch": "2.13"},
        "headline": [{"value": "0.90", "label": "accuracy", "note": "base 0.33"}],
        "tasks": {
            "classification": {"tfidf": classification(25), "base": classification(5), "lora": classification(28)},
            "short_qa": {"base": answers("x"), "lora": answers("a b")},
            "long_qa": {"base": answers("x"), "lora": answers("a b c")},
        },
        "answers": [
            {"task": "classification", "adapter": "clf", "revision": 1, "digest": "sha256:" + "a" * 64, "context": "",
             "residency": "cold", "question": "What?", "answer": "<b>AI</b>", "reference": "AI", "probability": 0.9},
        ],
        "training": {
            "clf@1": {"seconds": 60.0, "steps": 10, "trainable_parameters": 1000, "trainable_share": 0.01,
                      "tokens_per_second": 4000.0, "peak_bytes": 1e9, "last_loss": 0.5,
                      "loss_history": [{"step": 1, "loss": 2.0}, {"step": 10, "loss": 0.5}]},
        },
        "load": {**summarise(records()), "description": "Poisson, 10 requests/s."},
        "swap": {**swap, "reference": "clf@prod", "timeline": timeline, "moved": 0.95, "acknowledged": 1.0},
        "storage": [
            {"artifact": "clf@1", "kind": "adapter", "rank": 8, "bytes": 5000, "ratio_to_full": 0.01, "per_full": 100},
            {"artifact": "full@1", "kind": "full", "rank": None, "bytes": 500000, "ratio_to_full": 1, "per_full": 1},
        ],
        "steps": [{"name": "train", "seconds": 61.0}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(report: dict[str, Any]) -> str:
    return render(report)


def test_page_refers_to_nothing_outside_itself(page: str) -> None:
    references = re.findall(r"""(?:src|href|action|data|poster|srcset)\s*=\s*["']([^"']*)""", page)
    assert references
    assert all(reference.startswith("data:") for reference in references)
    assert not re.search(r"url\s*\(|@import|<script|<link(?![^>]*data:)|<iframe|<object", page)
    assert not re.search(r"https?://|//cdn", page)


def test_pictures_are_whole_and_refer_to_nothing_outside(page: str) -> None:
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(pictures) == 10  # 3 metrics, 3 confusion matrices, loss, latency, swap, storage
    for picture in pictures:
        svg = base64.b64decode(picture).decode()
        assert svg.rstrip().endswith("</svg>")
        assert not re.search(r'(?:xlink:)?href="(?!#|data:)|<!DOCTYPE', svg)


def test_figures_and_values_are_in_the_page(report: dict[str, Any], page: str) -> None:
    accuracy = report["tasks"]["classification"]["lora"]["accuracy"]
    for text in (f"{accuracy:.3f}", "clf@prod", "wrong revision", "500,000", "1 min 1 s", "fitted on the references"):
        assert text in page, text


def test_averages_by_class_are_over_the_rows_that_are_shown(report: dict[str, Any], page: str) -> None:
    lora = report["tasks"]["classification"]["lora"]
    assert lora["other"] == 0
    macro = next(row for row in lora["report"] if row["name"] == "macro avg")
    rows = re.findall(r"<td>macro avg</td><td>([0-9.]+)</td><td>([0-9.]+)</td><td>([0-9.]+)</td>", page)
    assert (f"{macro['precision']:.2f}", f"{macro['recall']:.2f}", f"{macro['f1']:.2f}") in rows
    assert len(rows) == 3


def test_text_from_models_and_data_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert "&lt;b&gt;AI&lt;/b&gt;" in page


@pytest.mark.parametrize("missing", ["tasks", "answers", "training", "load", "swap", "storage", "machine", "headline"])
def test_broken_run_renders_what_it_has(report: dict[str, Any], missing: str) -> None:
    tasks = {"short_qa": report["tasks"]["short_qa"]}  # the others are drawn above
    part = {**report, "tasks": tasks, "unfinished": "training failed."}
    del part[missing]
    assert "Broken off: training failed." in render(part)


def test_only_the_beginning_of_a_run_renders() -> None:
    assert "Broken off" in render({"title": "t", "created": "now", "unfinished": "at once."})


def test_json_is_written_beside_the_page(report: dict[str, Any], tmp_path: Path) -> None:
    data, html = write_report({key: report[key] for key in ("title", "created", "storage", "swap")}, tmp_path / "out")
    assert json.loads(data.read_text())["swap"]["wrong_revision"] == 0
    assert html.read_text().startswith("<!DOCTYPE html>")
