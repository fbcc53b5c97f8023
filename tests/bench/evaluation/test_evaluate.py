"""`loradeck eval run` and the evaluation behind it, against a real gRPC server with scripted answers."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from loradeck_bench.asking import Asker, connect
from loradeck_bench.evaluation.run import LOST, Evaluation
from loradeck_bench.load.plan import Subject
from loradeck_cli.evaluate.group import command
from loradeck_registry.errors import LoradeckError, UnavailableError
from tests.bench.conftest import RunningServer

ROWS = tuple(
    {"text": f"{'AI' if i % 4 else 'Telecom'} text {i}", "label": "AI" if i % 2 else "Telecom"} for i in range(40)
)
# The scripted server answers with the first word: right for odd rows (AI, AI) and for every fourth (Telecom, Telecom).


def write(path: Path, rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


async def invoke(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, command, ["run", *arguments])


async def test_classification_figures_and_answers_are_written(scripted: RunningServer, tmp_path: Path) -> None:
    out = tmp_path / "out" / "clf.json"
    result = await invoke(
        "--server", scripted.address, "--adapter", "clf@prod", "--task", "classification",
        "--data", write(tmp_path / "d.jsonl", ROWS), "--json", str(out),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["accuracy"] == pytest.approx(30 / 40)
    assert figures["answered"] == 40
    assert [row["name"] for row in figures["report"][:2]] == ["AI", "Telecom"]
    assert figures["answered_by"][0]["name"] == "clf"
    assert [item["row"] for item in figures["items"]] == list(range(40))
    assert figures["items"][0] == {
        "row": 0, "gold": "Telecom", "answer": "Telecom", "status": "ok", "reason": "", "probability": 0.75,
    }  # fmt: skip
    assert figures["ece"] == pytest.approx(0.0)  # three of four are right, each answered with 0.75
    assert "macro avg" in result.output


async def test_base_gets_the_labels_of_the_whole_set(scripted: RunningServer, tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", ROWS)
    result = await invoke(
        "--server", scripted.address, "--base", "--task", "classification", "--data", data, "--limit", "6",
        "--json", "-",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == 6
    assert {tuple(request.labels) for request in scripted.servicer.seen} == {("AI", "Telecom")}
    assert {request.adapter for request in scripted.servicer.seen} == {""}


@pytest.mark.parametrize("task", ["short_qa", "long_qa"])
async def test_answers_get_every_metric_and_the_same_limits(scripted: RunningServer, tmp_path: Path, task: str) -> None:
    column = "short_answer" if task == "short_qa" else "long_answer"
    rows = [{"context": "c", "question": "word word?", column: "word word word"}] * 3
    result = await invoke(
        "--server", scripted.address, "--adapter", "qa", "--task", task, "--data", write(tmp_path / "d.jsonl", rows),
        "--json", "-",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert {"bleu", "ref_len", "resp_len", "rouge_1", "chrf", "tfidf_cosine"} <= set(figures)
    assert figures["ref_len"] == 3
    assert {r.sampling.max_tokens for r in scripted.servicer.seen} == {48 if task == "short_qa" else 192}
    assert {r.sampling.temperature for r in scripted.servicer.seen} == {0.0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows in"),
        ([{"text": "a", "lable": "x"}], "column 'label' is missing"),
        ([{"text": "a", "label": "x"}], "fewer than two labels"),
    ],
)
async def test_bad_data_is_one_clear_line(scripted: RunningServer, tmp_path: Path, rows: Any, message: str) -> None:
    data = write(tmp_path / "d.jsonl", rows)
    result = await invoke("--server", scripted.address, "--adapter", "a", "--task", "classification", "--data", data)
    assert isinstance(result.exception, LoradeckError)
    assert message in result.exception.message
    assert not scripted.servicer.seen


async def test_unreachable_server_is_one_clear_line(tmp_path: Path) -> None:
    result = await invoke("--server", "127.0.0.1:1", "--adapter", "a", "--task", "classification", "--limit", "9")
    assert isinstance(result.exception, UnavailableError)
    assert result.exception.message.startswith("no server answers at 127.0.0.1:1")


async def test_unwritable_result_is_refused_before_anything_is_asked(scripted: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = await invoke(
        "--server", scripted.address, "--adapter", "a", "--task", "classification",
        "--json", str(tmp_path / "file" / "x.json"),
    )  # fmt: skip
    assert isinstance(result.exception, LoradeckError)
    assert "cannot write" in result.exception.message
    assert not scripted.servicer.seen


async def test_server_that_goes_away_leaves_the_figures_of_what_was_answered(scripted: RunningServer) -> None:
    scripted.servicer.classify_seconds = 0.01
    subject = Subject("clf", "classification", ROWS * 20)

    def stop_answering(done: int) -> None:
        if done >= 30:
            scripted.servicer.errors["clf"] = grpc.StatusCode.UNAVAILABLE

    async with connect(scripted.address) as client:
        run = Evaluation(Asker(client, {"clf": subject}, 5.0), "classification", subject.rows, "clf", ["AI", "Telecom"])
        unfinished = await run.run(4, stop_answering)
    assert unfinished is not None
    assert "the server went away" in unfinished
    figures = run.figures()
    assert 30 <= figures["answered"] < 60
    assert LOST <= figures["failed"] < LOST + 8
    assert figures["errors"] == {"NOT_REACHABLE": figures["failed"]}


async def test_single_failures_are_counted_and_not_scored(scripted: RunningServer) -> None:
    subject = Subject("clf", "classification", ROWS)

    def fail_once(done: int) -> None:
        scripted.servicer.errors = {"clf": grpc.StatusCode.INTERNAL} if done == 10 else {}

    async with connect(scripted.address) as client:
        run = Evaluation(Asker(client, {"clf": subject}, 5.0), "classification", subject.rows, "clf", ["AI", "Telecom"])
        assert await run.run(1, fail_once) is None
    figures = run.figures()
    assert (figures["answered"], figures["failed"], figures["errors"]) == (39, 1, {"INTERNAL": 1})
    assert sum(row["support"] for row in figures["report"][:2]) == 39


async def test_nothing_answered_is_an_error(scripted: RunningServer) -> None:
    subject = Subject("clf", "classification", ROWS[:3])
    async with connect(scripted.address) as client:
        run = Evaluation(Asker(client, {"clf": subject}, 5.0), "classification", subject.rows, "clf", ["AI", "Telecom"])
        scripted.servicer.errors["clf"] = grpc.StatusCode.NOT_FOUND
        with pytest.raises(LoradeckError, match="scripted"):
            await run.run(1)
        with pytest.raises(UnavailableError, match="no row was answered"):
            run.figures()
