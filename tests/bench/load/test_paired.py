"""One side against another: pairs of blocks on one schedule, intervals over alternations, verdicts."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

import loradeck.inference.v1 as inference
from loradeck_bench.load.paired import FEWEST, Measure, judge
from loradeck_cli.bench.group import command
from tests.bench.conftest import RunningServer, ScriptedServicer

LATENCY = Measure("latency_ms.p50", True)
SCORE = Measure("accuracy", False, False)


def noisy(middle: float, count: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [middle * draw.uniform(0.9, 1.1) for _ in range(count)]


def test_real_difference_is_shown_and_equal_sides_are_not() -> None:
    slower = judge(LATENCY, noisy(100, 9, 1), noisy(130, 9, 2))
    assert (slower["verdict"], slower["compared_by"]) == ("a is better", "ratio b/a")
    assert slower["interval"][0] < slower["change"] < slower["interval"][1]
    assert slower["change"] == pytest.approx(1.3, rel=0.06)
    assert judge(LATENCY, noisy(130, 9, 1), noisy(100, 9, 2))["verdict"] == "b is better"
    assert judge(Measure("tokens/s", False), noisy(100, 9, 1), noisy(130, 9, 2))["verdict"] == "b is better"
    assert judge(LATENCY, noisy(100, 9, 1), noisy(100, 9, 2))["verdict"] == "no difference"


def test_equal_sides_are_called_different_about_as_rarely_as_the_rule_says() -> None:
    """A percentile bootstrap of nine pairs is somewhat too narrow: about one in ten instead of one in twenty."""
    rng = np.random.default_rng(0)
    wrong = sum(
        judge(LATENCY, rng.lognormal(0, 0.2, 9), rng.lognormal(0, 0.2, 9))["verdict"] != "no difference"
        for _ in range(150)
    )
    assert wrong / 150 < 0.15


def test_what_falls_on_both_sides_of_an_alternation_cancels() -> None:
    """The machine is three times as slow in every other alternation; b is 5 % slower in each."""
    drift = [100.0, 300.0] * 5
    found = judge(LATENCY, drift, [1.05 * value * (1 + 0.001 * place) for place, value in enumerate(drift)])
    assert found["verdict"] == "a is better"


def test_shares_and_scores_are_compared_by_difference_and_few_rounds_give_no_verdict() -> None:
    found = judge(SCORE, [0.0] * FEWEST, [0.25] * FEWEST)
    assert (found["compared_by"], found["change"], found["verdict"]) == ("difference b-a", 0.25, "b is better")
    assert judge(SCORE, [0.0] * (FEWEST - 1), [0.25] * (FEWEST - 1))["verdict"] == "too few"
    assert judge(LATENCY, [0.0, 1.0], [1.0, 1.0])["compared_by"] == "difference b-a"  # no ratio to nothing


async def run(*arguments: str) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, command, ["ab", *arguments])


async def test_slower_server_loses_on_one_schedule(scripted: RunningServer, tmp_path: Path) -> None:
    server = grpc.aio.server()
    slow = ScriptedServicer(classify_seconds=0.2)
    inference.add_InferenceServiceServicer_to_server(slow, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    records, page, out = tmp_path / "records.jsonl", tmp_path / "ab.html", tmp_path / "ab.json"
    try:
        result = await run(
            "--server", scripted.address, "--against", f"127.0.0.1:{port}", "--adapter", "a=classification",
            "--rate", "40", "--seconds", "0.4", "--alternations", "9", "--json", str(out), "--records", str(records),
            "--html", str(page), "--slo", "latency=10000",
        )  # fmt: skip
    finally:
        await server.stop(None)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert found["figures"]["latency_ms.p50"]["verdict"] == "a is better"
    assert found["figures"]["latency_ms.p50"]["change"] > 1.2
    assert found["figures"]["attained"]["verdict"] == "no difference"
    assert found["sides"]["b"]["server"] == f"127.0.0.1:{port}"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    sent: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for line in lines:
        sent.setdefault((line["side"], line["schedule"]), []).append((line["intended"], line["row"]))
    assert len(sent) == 18
    for schedule in range(9):
        assert sorted(sent["a", schedule]) == sorted(sent["b", schedule])
    first: dict[int, str] = {}
    for line in lines:
        first.setdefault(line["schedule"], line["side"])
    assert [first[number] for number in range(9)] == list("ababababa")  # they take turns in going first
    assert "a is better" in result.output
    assert "latency_ms.p50" in page.read_text()


async def test_sides_with_unlike_adapters_and_a_side_that_goes_away(scripted: RunningServer) -> None:
    address = scripted.address
    result = await run("--server", address, "--adapter", "a=classification", "--against-adapter", "b=classification",
                       "--against-adapter", "c=classification", "--rate", "5")  # fmt: skip
    assert result.exit_code == 2
    assert "as many --against-adapter as --adapter" in result.output
    result = await run("--server", address, "--against", "127.0.0.1:1", "--adapter", "a=classification", "--rate", "9",
                       "--seconds", "0.5")  # fmt: skip
    assert result.exit_code == 1
    assert "no server answers at 127.0.0.1:1" in result.exception.message
