"""Shapes of load, sweep and goodput as a user calls them, against a real gRPC server with scripted delays."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loradeck_cli.bench.group import command
from loradeck_registry.errors import LoradeckError
from tests.bench.conftest import RunningServer

CLF = ("--adapter", "a=classification", "--adapter", "b=classification")


async def invoke(server: RunningServer, *arguments: str) -> Result:
    line = [arguments[0], "--server", server.address, *CLF, *arguments[1:]]
    return await asyncio.to_thread(CliRunner().invoke, command, line)


async def run(server: RunningServer, *arguments: str) -> dict[str, Any]:
    result = await invoke(server, *arguments, "--json", "-")
    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


async def test_ramp_and_drift_show_over_time(scripted: RunningServer) -> None:
    found = await run(
        scripted, "load", "--rates", "0:100", "--arrivals", "constant", "--duration", "1",
        "--popularity", "drift:0.5:weights:1,0",
    )  # fmt: skip
    assert found["requests"] == 50
    assert (found["rates"], found["arrivals"]) == ("0:100", "constant")
    windows = found["over_time"]
    assert [window["requests"] for window in windows] == pytest.approx([1, 1, 3, 3, 4, 6, 6, 8, 8, 10], abs=1)
    assert windows[2]["shares"] == {"a": 1.0}
    assert windows[7]["shares"] == {"b": 1.0}
    assert found["description"].startswith("Open loop, even arrivals, rates 0:100 requests/s for 1 s")


async def test_trace_is_replayed_and_bad_rows_are_said(scripted: RunningServer, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    lines = "".join(f"{number},{10 + number},{5}\n" for number in range(20))
    trace.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{lines}broken,1,1\n")
    out = tmp_path / "load.json"
    result = await invoke(
        scripted, "load", "--trace", str(trace), "--speed", "40", "--duration", "2", "--json", str(out)
    )
    assert result.exit_code == 0, result.output
    assert "1 bad rows of the trace skipped" in result.output
    assert "shares: " in result.output
    found = json.loads(out.read_text())
    assert found["requests"] == 20
    assert found["trace"] == {
        "source": "trace.csv", "rows": 20, "skipped_rows": 1, "speed": 40.0, "token_scale": 1.0,
    }  # fmt: skip


async def test_sweep_stops_where_a_server_that_takes_one_at_a_time_is_full(scripted: RunningServer) -> None:
    scripted.servicer.classify_seconds = 0.025
    scripted.servicer.one_at_a_time = asyncio.Lock()
    found = await run(scripted, "sweep", "--rates", "10,100,200", "--seconds", "2", "--arrivals", "constant")
    assert (found["sustained_rate"], found["saturated_rate"]) == (10, 100)
    assert found["peak_per_second"] < 45
    assert "the queue grew by" in found["steps"][1]["saturated"]


async def test_goodput_is_bracketed(scripted: RunningServer) -> None:
    scripted.servicer.classify_seconds = 0.02
    scripted.servicer.one_at_a_time = asyncio.Lock()
    found = await run(
        scripted, "goodput", "--slo", "latency=400", "--start", "4", "--seconds", "1", "--precision", "1",
        "--arrivals", "constant", "--attainment", "0.9",
    )  # fmt: skip
    assert found["bracketed"]
    assert 0 < found["rate"] <= 100  # below the first one where one of its four answers was late
    assert found["objective"] == {"bounds_ms": {"latency": 400.0}, "attainment": 0.9}


async def test_objective_that_never_holds_is_an_error(scripted: RunningServer) -> None:
    scripted.servicer.classify_seconds = 0.05
    result = await invoke(scripted, "goodput", "--slo", "latency=1", "--start", "100", "--seconds", "0.3")
    assert result.exit_code == 1
    assert "no rate held the objective" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("load", "--rates", "5"), "2:20 for a ramp"),
        (("load", "--rate", "5", "--arrivals", "pareto"), "bad arrivals 'pareto'"),
        (("load", "--trace", "none.csv"), "no trace at none.csv"),
        (("load", "--rate", "5", "--popularity", "drift:1"), "bad popularity law"),
        (("sweep", "--rates", "3,2", "--seconds", "0.1"), "must rise"),
        (("goodput", "--slo", "speed=3"), "bad objective"),
    ],
)
async def test_bad_input_is_one_clear_line(scripted: RunningServer, arguments: tuple[str, ...], message: str) -> None:
    result = await invoke(scripted, *arguments)
    assert isinstance(result.exception, LoradeckError)
    assert message in result.exception.message


async def test_load_needs_none_of_the_libraries_of_metrics(scripted: RunningServer, tmp_path: Path) -> None:
    """As in a plain install: it runs, and says that it does not score."""
    missing = ("sklearn", "scipy", "sacrebleu", "rouge_score", "sqlglot", "jinja2", "matplotlib")
    out = tmp_path / "load.json"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"
        "from loradeck_cli.bench.group import command\n"
        f"command(['load', '--server', {scripted.address!r}, '--adapter', 'a=classification', '--base',\n"
        f"         '--task', 'classification', '--rate', '40', '--duration', '0.3', '--json', {str(out)!r}])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    shown, _ = await process.communicate()
    assert process.returncode == 0, shown.decode()
    assert "answers are not scored" in shown.decode()
    found = json.loads(out.read_text())
    assert found["ok"] == found["requests"] > 0
    assert "quality" not in found


async def test_metrics_are_chosen_by_name_and_no_quality_leaves_them_out(scripted: RunningServer) -> None:
    line = ("load", "--rate", "40", "--duration", "0.3")
    found = await run(scripted, *line)
    assert found["quality"]["headline"] == {"classification": "accuracy"}
    assert "quality" not in await run(scripted, *line, "--no-quality")
    result = await invoke(scripted, *line, "--metric", "nonsense")
    assert isinstance(result.exception, LoradeckError)
    assert result.exception.message.startswith("no metric 'nonsense': there are bleu")


@pytest.mark.parametrize(
    "line",
    [
        ("load", "--rate", "40", "--duration", "60"),
        ("load", "--concurrency", "4", "--duration", "60", "--processes", "2"),
        ("sweep", "--rates", "40", "--seconds", "60"),
        ("goodput", "--slo", "latency=1000", "--start", "40", "--seconds", "60"),
        ("ab", "--rate", "40", "--seconds", "60"),
    ],
    ids=lambda line: f"{line[0]} {line[1]}",
)
async def test_interrupted_command_writes_what_it_has(
    scripted: RunningServer, tmp_path: Path, line: tuple[str, ...]
) -> None:
    scripted.servicer.classify_seconds = 0.05
    out, records = tmp_path / "out.json", tmp_path / "records.jsonl"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loradeck_cli.main", "bench", line[0], "--server", scripted.address, *CLF, *line[1:],
        "--records", str(records), "--json", str(out), "--no-quality",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    while len(scripted.servicer.seen) < 60:
        scripted.servicer.arrived.clear()
        await scripted.servicer.arrived.wait()
    process.send_signal(signal.SIGINT)
    _, error = await process.communicate()
    assert process.returncode == 130
    assert error.decode().splitlines()[-1].startswith("error: interrupted after")
    found = json.loads(out.read_text())
    assert found["unfinished"].startswith("interrupted after")
    lines = records.read_text().splitlines()
    assert len(lines) >= 10
    if line[0] == "load":
        assert found["requests"] == len(lines)
        assert found["ok"] >= 5
