"""Evaluation end to end: a real server is asked, results are attached, tested against each other, and gate an alias."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from loradeck_cli.evaluate.group import command
from loradeck_registry.errors import NotFoundError, PreconditionError
from tests.e2e.conftest import Served
from tests.serve.deck import LABELS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

WORDS = ("bank", "branch", "city", "network", "hospital", "scanner", "school", "tablet")
ROWS = [{"text": f"The {word} and the {other}.", "label": LABELS[len(word) % 3]} for word in WORDS for other in WORDS]


def write(path: Path, rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def evaluate(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(command, [*arguments, "--json", "-"])
    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_two_revisions_are_evaluated_attached_compared_and_gated(server: Served, tmp_path: Path) -> None:
    registry = server.deck.registry
    data = write(tmp_path / "rows.jsonl", ROWS)
    results = {}
    for number in (1, 2):
        results[number] = evaluate(
            "run", "--server", server.inference, "--adapter", f"clf@{number}", "--task", "classification",
            "--data", data, "--registry", server.deck.url, "--attach",
        )  # fmt: skip
        (tmp_path / f"{number}.json").write_text(json.dumps(results[number]))
        revision = registry.resolve(f"clf@{number}")
        assert results[number]["answered_by"][0]["digest"] == revision.digest
        assert registry.metrics(revision)["accuracy"] == results[number]["accuracy"]
        assert 0 <= results[number]["ece"] <= 1
        assert sum(one["count"] for one in results[number]["reliability"]) == len(ROWS)
    accuracies = [results[number]["accuracy"] for number in (1, 2)]
    compared = evaluate("compare", str(tmp_path / "1.json"), str(tmp_path / "2.json"), "--metric", "accuracy")
    (row,) = compared["comparisons"]
    assert row["difference"] == pytest.approx(accuracies[1] - accuracies[0])
    assert row["only_second"] - row["only_first"] == round(len(ROWS) * row["difference"])
    assert row["only_second"] + row["only_first"] > 0  # two random adapters do not agree on every row
    better = 1 if accuracies[0] >= accuracies[1] else 2
    registry.protect("clf", "evaluated", [f"accuracy >= {max(accuracies)}", f"macro_f1.low >= {0.0}"])
    registry.move_alias("clf", "evaluated", f"clf@{better}")
    registry.protect("clf", "evaluated", [f"accuracy > {max(accuracies)}"])
    with pytest.raises(PreconditionError, match="does not pass"):
        registry.move_alias("clf", "evaluated", f"clf@{3 - better}")


def test_free_generation_fills_the_adapters_template(server: Served, tmp_path: Path) -> None:
    rows = [{"what": "something", "about": word, "reference": "x #### 1"} for word in WORDS]
    found = evaluate(
        "run", "--server", server.inference, "--adapter", "free", "--task", "generate", "--max-tokens", "8",
        "--data", write(tmp_path / "rows.jsonl", rows), "--column", "what=what", "--column", "topic=about",
        "--metric", "gsm8k", "--metric", "chrf",
    )  # fmt: skip
    assert (found["answered"], found["failed"]) == (len(WORDS), 0)
    assert found["answered_by"][0]["name"] == "free"
    assert {"gsm8k_strict", "gsm8k_flexible", "chrf"} <= set(found["methods"])


def test_unknown_adapter_is_one_clear_line(server: Served, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", ROWS)
    result = CliRunner().invoke(
        command,
        ["run", "--server", server.inference, "--adapter", "nobody", "--task", "classification", "--data", data],
    )
    assert isinstance(result.exception, NotFoundError)
    assert "nobody" in result.exception.message
