"""`loradeck bench`: load and storage as a user calls them."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loradeck_cli.bench.group import command
from loradeck_registry.errors import InvalidError, LoradeckError, UnavailableError
from loradeck_registry.registry import Registry
from tests.bench.conftest import RunningServer
from tests.bench.test_storage import push


async def invoke(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, command, list(arguments))


async def test_load_writes_summary_records_and_page(scripted: RunningServer, tmp_path: Path) -> None:
    result = await invoke(
        "load", "--server", scripted.address, "--adapter", "clf@prod=classification", "--adapter", "qa=long_qa",
        "--base", "--task", "short_qa", "--rate", "60", "--duration", "0.5", "--popularity", "round_robin",
        "--json", str(tmp_path / "a" / "load.json"), "--records", str(tmp_path / "records.jsonl"),
        "--html", str(tmp_path / "load.html"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "a" / "load.json").read_text())
    assert set(summary["per_adapter"]) == {"clf@prod", "qa", "(base)"}
    assert set(summary["per_residency"]) == {"hot"}
    assert {"schedule_delay_ms", "shares", "latency_ms", "ttft_ms"} <= set(summary)
    records = (tmp_path / "records.jsonl").read_text().splitlines()
    assert len(records) == summary["requests"]
    assert "<h1>Load test</h1>" in (tmp_path / "load.html").read_text()
    assert all(heading in result.output for heading in ("adapter", "TTFT", "TPOT", "delay", "clf@prod", "(base)"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--adapter", "a", "--task", "short_qa"), "one of --rate, --rates, --trace and --concurrency"),
        (
            ("--adapter", "a", "--task", "short_qa", "--rate", "1", "--concurrency", "1"),
            "one of --rate, --rates, --trace and --concurrency",
        ),
        (("--rate", "1"), "at least one --adapter"),
    ],
)
async def test_wrong_usage_is_said(arguments: tuple[str, ...], message: str) -> None:
    result = await invoke("load", "--server", "127.0.0.1:1", *arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("who", [("--adapter", "a"), ("--base",), ("--adapter", "a=poetry")])
async def test_subject_without_a_task_is_refused(who: tuple[str, ...]) -> None:
    result = await invoke("load", "--server", "127.0.0.1:1", "--rate", "1", *who)
    assert isinstance(result.exception, InvalidError)
    assert "REF=TASK" in result.exception.message


async def test_unreachable_server_and_bad_law_are_one_clear_line() -> None:
    arguments = ("load", "--server", "127.0.0.1:1", "--adapter", "a=short_qa", "--rate", "5", "--duration", "1")
    result = await invoke(*arguments)
    assert isinstance(result.exception, UnavailableError)
    result = await invoke(*arguments, "--warm-up", "0", "--popularity", "pareto")
    assert isinstance(result.exception, LoradeckError)
    assert "popularity law" in result.exception.message


def test_storage_prints_and_writes_rows(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    push(registry, tmp_path, "clf", "adapter", {"adapter_config.json": b"{}" * 25})
    push(registry, tmp_path, "clf-full", "full", {"config.json": b"{}" * 100})
    out = tmp_path / "storage.json"
    result = CliRunner().invoke(command, ["storage", "--registry", str(tmp_path / "registry"), "--json", str(out)])
    assert result.exit_code == 0, result.output
    rows = [row for row in json.loads(out.read_text())["rows"] if row["source"] == "registry"]
    assert {row["artifact"]: row["ratio_to_full"] for row in rows} == {"clf-full@1": 1.0, "clf@1": 0.25}
    assert "25.0%" in result.output
