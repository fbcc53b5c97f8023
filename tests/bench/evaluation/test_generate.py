"""Free generation is evaluated with any fields, any reference, and chosen metrics, over a real gRPC server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loradeck_cli.evaluate.group import command
from loradeck_registry.errors import InvalidError, LoradeckError, NotFoundError
from tests.bench.conftest import RunningServer

ROWS = [
    {"q": "so it is #### 18", "solution": "9 * 2\n#### 18", "kind": "math"},
    {"q": "#### 17", "solution": "#### 18", "kind": "math"},
    {"q": "hello", "solution": None, "kind": "chat"},
]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


async def invoke(server: RunningServer, *arguments: str) -> Result:
    line = ["run", "--server", server.address, "--task", "generate", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, command, line)


async def figures(server: RunningServer, *arguments: str) -> dict[str, Any]:
    result = await invoke(server, *arguments, "--json", "-")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


async def test_adapter_gets_its_fields_and_rows_without_reference_are_counted(
    scripted: RunningServer, tmp_path: Path
) -> None:
    found = await figures(
        scripted, "--adapter", "math", "--data", write(tmp_path / "d.jsonl", ROWS), "--metric", "gsm8k",
        "--column", "question=q", "--column", "reference=solution", "--column", "category=kind",
    )  # fmt: skip
    assert found["gsm8k_strict"] == pytest.approx(1 / 2)
    assert (found["answered"], found["without_reference"]) == (3, 1)
    assert dict(scripted.servicer.seen[0].fields.values) == {"question": "so it is #### 18"}
    assert {request.sampling.max_tokens for request in scripted.servicer.seen} == {256}
    assert found["items"][0]["scores"] == {"gsm8k_strict": 1.0, "gsm8k_flexible": 1.0, "gsm8k_marked": 1.0}
    assert found["items"][2]["category"] == "chat"
    assert "scores" not in found["items"][2]


async def test_base_gets_a_message_from_the_template(scripted: RunningServer, tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", [{"topic": "banks", "tone": "dry", "reference": "Write on banks, dry"}])
    columns = ("--column", "topic=topic", "--column", "tone=tone")
    found = await figures(
        scripted,
        "--base",
        "--data",
        data,
        *columns,
        "--template",
        "Write on {topic}, {tone}",
        "--metric",
        "exact_match",
    )
    assert found["exact_match"] == 1.0
    result = await invoke(scripted, "--base", "--data", data, *columns)
    assert isinstance(result.exception, InvalidError)
    assert "--template" in result.exception.message
    result = await invoke(scripted, "--base", "--data", data, *columns, "--template", "{what}")
    assert isinstance(result.exception, InvalidError)
    assert "no field 'what'" in result.exception.message


async def test_set_without_any_reference_is_answered_and_not_scored(scripted: RunningServer, tmp_path: Path) -> None:
    found = await figures(scripted, "--base", "--data", write(tmp_path / "d.jsonl", [{"prompt": "Hello"}]))
    assert (found["methods"], found["items"][0]["answer"]) == ({}, "Hello")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--metric", "blue"), NotFoundError, "no metric 'blue'"),
        (("--column", "reference=gold"), InvalidError, "column 'gold' is in no row"),
        (("--column", "1x=q"), InvalidError, "bad column"),
        (("--metric", "sql", "--database", "none.sqlite"), NotFoundError, "no database"),
    ],
)
async def test_wrong_use_is_told_before_anything_is_asked(
    scripted: RunningServer, tmp_path: Path, arguments: tuple[str, ...], error: type[LoradeckError], message: str
) -> None:
    data = write(tmp_path / "d.jsonl", [{"prompt": "a", "q": "b"}])
    result = await invoke(scripted, "--adapter", "a", "--data", data, *arguments)
    assert isinstance(result.exception, error)
    assert message in result.exception.message
    assert not scripted.servicer.seen


async def test_reference_of_another_form_is_told_before_anything_is_asked(
    scripted: RunningServer, tmp_path: Path
) -> None:
    data = write(tmp_path / "d.jsonl", [{"prompt": "#### 1", "reference": "one"}])
    result = await invoke(scripted, "--base", "--data", data, "--metric", "gsm8k")
    assert isinstance(result.exception, InvalidError)
    assert "no number behind '####' in the reference 'one'" in result.exception.message
    assert not scripted.servicer.seen


@pytest.mark.parametrize(("source", "answer"), [("pocket:gsm8k", "answer"), ("pocket:wikisql", "sql")])
async def test_samples_of_the_project_can_be_asked(scripted: RunningServer, source: str, answer: str) -> None:
    metric = "gsm8k" if source == "pocket:gsm8k" else "sql"
    found = await figures(
        scripted, "--adapter", "x", "--data", source, "--column", "question=question",
        "--column", f"reference={answer}", "--metric", metric,
    )  # fmt: skip
    assert found["answered"] == 200
    assert found["gsm8k_strict" if metric == "gsm8k" else "sql_canonical"] == 0.0


async def test_page_shows_the_pictures_and_asks_nothing_of_the_network(scripted: RunningServer, tmp_path: Path) -> None:
    rows = [
        {"text": f"{'AI' if i % 4 else 'Telecom'} <b>{i}</b>", "label": "AI" if i % 2 else "Telecom"} for i in range(40)
    ]
    page = tmp_path / "out" / "clf.html"
    result = await asyncio.to_thread(
        CliRunner().invoke,
        command,
        ["run", "--server", scripted.address, "--task", "classification", "--adapter", "clf",
         "--data", write(tmp_path / "d.jsonl", rows), "--html", str(page)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.count("data:image/svg+xml;base64,") == 2
    assert "reliability curve" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<b>" not in text
