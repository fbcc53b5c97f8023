"""`loradeck bench client`: the client's own limit is found, and told from that of the server that answers."""

import json
import time
from typing import Any

import pytest
from click.testing import CliRunner

from loradeck_bench import asking
from loradeck_bench.load.client.speed import ClientPlan, measure_client, step_of
from loradeck_bench.load.record import OK, RequestRecord
from loradeck_bench.load.run import Sent
from loradeck_bench.load.vitals import Vitals
from loradeck_bench.loop import run_fast
from loradeck_cli.main import loradeck


def test_command_reports_both_kinds_of_request_with_what_the_client_took() -> None:
    done = CliRunner().invoke(
        loradeck,
        ["bench", "client", "--start", "20", "--factor", "2", "--steps", "2", "--seconds", "1", "--json", "-"],
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    for kind in ("unary", "stream"):
        steps = found["kinds"][kind]["steps"]
        assert [step["rate"] for step in steps] == [20, 40][: len(steps)]
        for step in steps:
            assert step["failed"] == 0
            assert step["cpu_share"] > 0
            assert step["client_ms_per_request"] > 0
    assert "20 ms late" in found["rule"]
    assert found["machine"]


def test_client_that_is_too_slow_is_found_out_and_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = asking.Asker.__call__

    async def slow(self: asking.Asker, record: Any, now: Any) -> None:
        time.sleep(0.03)  # noqa: ASYNC251  # what a client that computes too much does to its event loop
        await ask(self, record, now)

    monkeypatch.setattr(asking.Asker, "__call__", slow)
    found = run_fast(measure_client(ClientPlan(start=60, steps=2, seconds=1.0)))
    for kind in found["kinds"].values():
        assert kind["limit"] == "client"
        assert kind["requests_per_second"] is None
        assert len(kind["steps"]) == 1, "no further step after the limit"


@pytest.mark.parametrize(("lag", "answer", "limit"), [(0.001, 0.01, ""), (0.001, 9.0, "server"), (0.1, 9.0, "client")])
def test_server_that_is_too_slow_is_told_from_the_client(lag: float, answer: float, limit: str) -> None:
    sent = [number / 100 for number in range(400)]
    records = [
        RequestRecord(number, "none", "long_qa", 0, moment, sent=moment + 0.001, end=moment + answer, status=OK)
        for number, moment in enumerate(sent)
    ]
    step = step_of(100.0, 4.0, Sent(records, [Vitals([lag] * 200, 2.0, 4.0)]))
    assert step.limit == limit
    assert step.cpu_share == 0.5
    assert step.client_ms_per_request == pytest.approx(1000 * 2.0 / 400)
    assert step.delay_p99_ms == pytest.approx(1.0)
    assert step.lag_p99_ms == pytest.approx(1000 * lag)
