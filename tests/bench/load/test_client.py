"""The client of a load test: several processes, its own lateness, a server that goes away, the live view."""

import asyncio
import contextlib
import io
import os
import re
import signal
import time

import psutil
import pytest
from rich.console import Console

from loradeck_bench.asking import Asking, connect
from loradeck_bench.load import generator
from loradeck_bench.load.live import LiveView, live_view
from loradeck_bench.load.plan import LoadPlan, Subject
from loradeck_bench.load.processes import send_from
from loradeck_bench.load.record import OK, RequestRecord
from loradeck_bench.load.run import send, warm_up
from loradeck_bench.load.vitals import Vitals, client_of, watched
from loradeck_registry.errors import InvalidError, NotFoundError, UnavailableError
from tests.bench.conftest import RunningServer
from tests.serve.waiting import until

ROWS = ({"text": "AI and so on", "label": "AI"}, {"text": "Telecom and so on", "label": "Telecom"})
SUBJECTS = {name: Subject(name, "classification", ROWS) for name in ("a", "b")}


def plan(**settings: object) -> LoadPlan:
    return LoadPlan(SUBJECTS, **settings)  # type: ignore[arg-type]


async def test_processes_send_the_schedule_of_one_and_their_records_are_merged(scripted: RunningServer) -> None:
    scripted.servicer.classify_seconds = 0.05
    what = plan(rate=40, duration=1.5, popularity="zipf:1")
    seen: list[RequestRecord] = []
    sent = await send_from(Asking(scripted.address, SUBJECTS), what, 2, seen.append)
    assert sent.unfinished is None
    assert len(sent.vitals) == 2
    records = sorted(sent.records, key=lambda record: record.index)
    planned = what.scheduled()
    assert [(r.index, r.adapter, r.row, r.intended) for r in records] == [
        (r.index, r.adapter, r.row, r.intended) for r in planned
    ]
    assert len(seen) == len(records)
    for record in records:
        assert record.ok
        assert record.text == ROWS[record.row]["label"]
        assert record.delay is not None
        assert 0 <= record.delay < 30  # one clock: nobody sends before its time
    # Each half of the requests, but for those of the two warm-ups.
    assert len(scripted.servicer.seen) == len(records) + 4


async def _asked(server: RunningServer, count: int) -> None:
    """Until the server has seen so many requests."""
    while len(server.servicer.seen) < count:
        server.servicer.arrived.clear()
        await server.servicer.arrived.wait()


async def test_closed_loop_deals_its_places_out(scripted: RunningServer) -> None:
    scripted.servicer.classify_seconds = 0.1
    sent = await send_from(Asking(scripted.address, SUBJECTS), plan(concurrency=3, duration=3), 2)
    moments = sorted([m for r in sent.records for m in ((r.sent or 0, 1), (r.end or 0, -1))])
    under_way = 0
    most = 0
    for _, step in moments:
        under_way += step
        most = max(most, under_way)
    assert most == 3
    assert len({record.index for record in sent.records}) == len(sent.records)


def client_processes() -> list[int]:
    """Ids of the processes of the clients; a child that has ended and waits to be noticed has no command line."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


async def test_interrupted_processes_hand_over_what_they_have(scripted: RunningServer) -> None:
    task = asyncio.create_task(send_from(Asking(scripted.address, SUBJECTS), plan(rate=40, duration=60), 2))
    await _asked(scripted, 24)
    task.cancel()
    sent = await task
    assert sent.unfinished is not None
    assert sent.unfinished.startswith("interrupted after")
    assert sum(record.ok for record in sent.records) >= 8
    assert not client_processes()


async def test_client_process_that_dies_is_an_error(scripted: RunningServer) -> None:
    task = asyncio.create_task(send_from(Asking(scripted.address, SUBJECTS), plan(rate=40, duration=60), 2))
    await _asked(scripted, 8)
    os.kill(client_processes()[0], signal.SIGKILL)
    with pytest.raises(UnavailableError, match=r"client process [12] of 2 ended"):
        await asyncio.wait_for(task, 60)


async def test_errors_of_the_warm_up_come_back_from_processes(scripted: RunningServer) -> None:
    import grpc

    scripted.servicer.errors["b"] = grpc.StatusCode.NOT_FOUND
    with pytest.raises(NotFoundError):
        await send_from(Asking(scripted.address, SUBJECTS), plan(rate=40, duration=5), 2)
    with pytest.raises(InvalidError, match="3 processes need 3"):
        await send_from(Asking(scripted.address, SUBJECTS), plan(concurrency=2, duration=5), 3)


async def test_blocked_event_loop_is_told_as_the_bottleneck() -> None:
    async with watched() as vitals:
        for _ in range(5):
            await asyncio.sleep(0.03)
            time.sleep(0.1)  # noqa: ASYNC251
    late = [RequestRecord(number, "a", "short_qa", 0, 0.0, sent=0.0, end=0.1) for number in range(10)]
    found = client_of(late, [vitals])
    assert found["bottleneck"]
    assert "its event loop ran" in found["verdict"]
    assert found["event_loop_lag_ms"]["max"] > 60


@pytest.mark.parametrize(
    ("delay", "cpu", "limited", "said"),
    [
        (0.001, 0.3, False, None),
        (0.100, 0.3, False, "requests were sent 100 ms late"),
        (0.100, 0.3, True, None),  # a client pool was asked for: its waiting is part of the test
        (0.001, 0.95, False, "a process took 95% of a core"),
    ],
)
def test_verdict_names_its_signs(delay: float, cpu: float, limited: bool, said: str | None) -> None:
    records = [RequestRecord(number, "a", "short_qa", 0, 1.0, sent=1.0 + delay) for number in range(10)]
    found = client_of(records, [Vitals([0.001] * 50, cpu * 10, 10.0)], limited=limited)
    assert found["bottleneck"] is (said is not None)
    assert (said or "was not the bottleneck") in found["verdict"]


async def test_server_that_goes_away_for_good_ends_the_run(
    scripted: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "GONE_SECONDS", 0.5)
    what = plan(rate=40, duration=60)
    ended: list[RequestRecord] = []
    async with Asking(scripted.address, SUBJECTS, 5.0).opened() as ask:
        await warm_up(ask, what)
        task = asyncio.create_task(send(ask, what, ended.append))
        await until(lambda: len(ended) >= 5)
        await scripted.server.stop(None)
        sent = await asyncio.wait_for(task, 60)
    assert sent.unfinished is not None
    assert sum(record.ok for record in sent.records) >= 5
    refused = [record.end for record in sent.records if record.status == "unavailable"]
    assert len(refused) >= 2
    said = re.fullmatch(r"the server went away after (\S+) of 60 s", sent.unfinished)
    assert said is not None
    # When it was first not there, and not when that was long enough.
    assert float(said[1]) == pytest.approx(refused[0], abs=0.3)


async def test_refusals_between_answers_do_not_end_a_run() -> None:
    run = generator.LoadRun(connect)  # type: ignore[arg-type]  # never asked
    for status in ("unavailable", OK) * 3:
        record = RequestRecord(0, "a", "short_qa", 0, 0.0, status=status)
        run._notice(record)
        run.started -= 20  # each comes 20 s after the one before
    assert run.gone_after is None
    assert not run.stopping


def test_live_view_shows_rates_adapters_and_errors() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with LiveView(console, plan(rate=10, duration=5), "Load") as view:
        assert "warming up" in _shown(view)
        for number in range(10):
            ok = number % 5 != 0
            view.seen(
                RequestRecord(
                    number,
                    "ab"[number % 2],
                    "classification",
                    0,
                    number / 10,
                    sent=number / 10,
                    end=number / 10 + 0.1,
                    status=OK if ok else "exhausted",
                    reason="" if ok else "QUEUE_FULL",
                    residency="hot",
                )
            )
        shown = _shown(view)
    assert "2 failed: QUEUE_FULL" in shown
    assert "hot 8" in shown
    lines = [line.split()[:3] for line in shown.splitlines()]
    assert ["a", "4", "1"] in lines
    assert ["b", "4", "1"] in lines


def _shown(view: LiveView) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def test_there_is_no_live_view_without_a_terminal() -> None:
    with live_view(Console(file=io.StringIO()), plan(rate=1, duration=5), "Load") as view:
        assert view is None
