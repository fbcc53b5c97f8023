"""Load tests on the real engine: every shape once, from two processes, with churn, answers scored, sides compared."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loradeck_cli.bench.group import command
from loradeck_registry.errors import NotFoundError
from tests.e2e.conftest import Served
from tests.serve.deck import LABELS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LABELLED = [{"text": f"The {word} in the city.", "label": LABELS[len(word) % 3]} for word in ("bank", "school", "park")]
ASKED = [{"context": "c", "question": f"What is {n}?", "long_answer": f"it is {n}"} for n in range(4)]


def invoke(server: Served, *arguments: str) -> Result:
    return CliRunner().invoke(command, [arguments[0], "--server", server.inference, *arguments[1:]])


def run(server: Served, *arguments: str) -> dict[str, Any]:
    result = invoke(server, *arguments, "--json", "-")
    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("load") / "rows.jsonl", LABELLED)


def test_load_under_churn_gives_no_wrong_reply(server: Served, tmp_path: Path) -> None:
    """Two processes stream from an alias while copies are published, the alias moves to them, and they are unloaded."""
    before = server.deck.registry.resolve("long@prod")
    records = tmp_path / "records.jsonl"
    found = run(
        server, "load", "--adapter", "long@prod=long_qa", "--data", write(tmp_path / "rows.jsonl", ASKED),
        "--rate", "8", "--arrivals", "gamma:2", "--duration", "12", "--processes", "2", "--max-tokens", "8",
        "--slo", "ttft=30000", "--churn", "publish,move,unload", "--churn-every", "1", "--admin", server.admin,
        "--registry", server.deck.url, "--records", str(records),
    )  # fmt: skip
    assert (found["failed"], found["attained"]) == (0, 1.0)
    churn = found["churn"]
    assert churn["failed_operations"] == 0, churn["operations"]
    assert churn["counts"]["publish"] >= 1
    assert churn["counts"]["move"] >= 1
    assert churn["wrong_revision"] == 0
    assert churn["copies_compared"] > 0
    assert churn["different_answers"] == 0  # float32: equal weights give equal answers
    assert len(found["revisions"]) >= 2
    assert server.deck.registry.resolve("long@prod").digest == before.digest  # moved back at the end
    assert set(found["per_residency"]) & {"cold", "warm", "remote"}  # unloaded, so loaded again
    assert found["client"]["processes"] == 2
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(lines) == found["requests"] == found["ok"]
    for line in lines:
        assert line["intended"] <= line["sent"] <= line["first"] <= line["last"] <= line["end"]
        # Tokens without text of their own, half characters at the end, come in no chunk.
        assert 0 < sum(tokens for _, tokens in line["chunks"]) <= line["output_tokens"]
        assert line["digest"].startswith("sha256:")
    assert found["itl_ms"]["count"] > len(lines)
    assert set(found["quality"]["per_revision"]) == {f"long@{number}" for number in found["revisions"]}


def test_closed_loop_and_ramp_score_what_they_timed(server: Served, labelled: str) -> None:
    who = ("--adapter", "clf@1=classification", "--adapter", "clf@2=classification", "--data", labelled)
    closed = run(server, "load", *who, "--concurrency", "2", "--duration", "1", "--popularity", "round_robin")
    ramp = run(server, "load", *who, "--rates", "2:20", "--duration", "1.5")
    for found in (closed, ramp):
        assert found["failed"] == 0
        assert set(found["per_residency"]) <= {"hot", "warm", "cold"}
        scored = found["quality"]["per_adapter"]["clf@1"]
        assert scored["answers"] == found["per_adapter"]["clf@1"]["ok"]
    # Equal rows, equal answers: only how often each was asked differs.
    asked = closed["per_adapter"]["clf@1"]["ok"]
    assert closed["quality"]["per_adapter"]["clf@1"]["rows"] == min(3, asked)
    assert sum(ramp["shares"].values()) == pytest.approx(1)


def test_sweep_and_sides_on_one_server(server: Served, labelled: str, tmp_path: Path) -> None:
    who = ("--adapter", "clf@1=classification", "--data", labelled)
    swept = run(server, "sweep", *who, "--rates", "4,12", "--seconds", "1", "--html", str(tmp_path / "sweep.html"))
    assert [step["rate"] for step in swept["steps"]] == [4, 12]
    for step in swept["steps"]:
        assert step["quality"]["per_task"]["classification"]["answers"] == step["requests"] - step["failed"]
    assert "Quality over the load" in (tmp_path / "sweep.html").read_text()
    sides = run(
        server, "ab", *who, "--against-adapter", "clf@2=classification", "--rate", "10", "--seconds", "0.3",
        "--alternations", "2",
    )  # fmt: skip
    assert sides["alternations"] == 2
    assert {one["verdict"] for one in sides["figures"].values()} == {"too few"}
    assert sides["figures"]["failed_share"]["b"] == 0


def test_unknown_adapter_is_said_before_anything_is_measured(server: Served, labelled: str) -> None:
    result = invoke(server, "load", "--adapter", "nobody=classification", "--data", labelled, "--rate", "5")
    assert isinstance(result.exception, NotFoundError)
    assert "nobody" in result.exception.message
