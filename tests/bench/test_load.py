"""The load generator against a real gRPC server that delays by known amounts."""

import asyncio
import itertools
import json
from pathlib import Path

import grpc
import pytest

from loradeck_bench.asking import Asker, connect
from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.figures.summary import summarise
from loradeck_bench.load.generator import LoadRun
from loradeck_bench.load.plan import LoadPlan, Subject
from loradeck_bench.load.record import RequestRecord, write_record
from loradeck_bench.load.run import run_load
from loradeck_registry.errors import InvalidError, UnavailableError
from tests.bench.conftest import DIGESTS, RunningServer
from tests.serve.waiting import until

ROWS = ({"text": "AI and so on", "label": "AI"}, {"text": "Telecom and so on", "label": "Telecom"})
QUESTIONS = ({"context": "c", "question": "q?", "long_answer": "a"},)
CLF = Subject("clf@prod", "classification", ROWS)
LONG = Subject("qa-long", "long_qa", QUESTIONS)


def plan(*subjects: Subject, **settings: object) -> LoadPlan:
    return LoadPlan({who.adapter: who for who in subjects}, **settings)  # type: ignore[arg-type]


async def run(server: RunningServer, what: LoadPlan) -> tuple[dict[str, object], list[RequestRecord]]:
    async with connect(server.address) as client:
        summary, records = await run_load(Asker(client, what.subjects, 5.0), what)
    return summary, sorted(records, key=lambda record: record.index)


async def test_times_of_a_stream_are_those_of_the_server(scripted: RunningServer) -> None:
    scripted.servicer.first_token_seconds = 0.2
    scripted.servicer.token_seconds = 0.03
    scripted.servicer.tokens = 9
    scripted.servicer.tokens_per_chunk = 2
    _, records = await run(scripted, plan(LONG, rate=10, duration=0.3, arrivals="constant"))
    assert len(records) == 3
    for record in records:
        assert record.ok
        # A busy machine adds to the server's delays and takes nothing from them.
        assert record.ttft >= 0.19
        assert [tokens for _, tokens in record.chunks] == [2, 2, 2, 2, 1]
        assert record.first == record.chunks[0][0]
        # 9 tokens of 30 ms: the end comes 270 ms after the first was sent, however late that was read; a chunk is not a
        # token.
        assert record.latency >= 0.46
        assert record.end - record.first > 0.1
        assert record.tpot == pytest.approx((record.end - record.first) / 8)
        assert (record.output_tokens, record.prompt_tokens) == (9, 7)
        assert (record.answered_by, record.revision, record.digest, record.residency) == (
            "qa-long",
            1,
            DIGESTS[1],
            "hot",
        )


async def test_open_loop_keeps_its_schedule_while_the_server_is_slow(scripted: RunningServer) -> None:
    scripted.servicer.stall.clear()
    sending = asyncio.create_task(run(scripted, plan(CLF, rate=50, duration=0.4, arrivals="constant", warm_up=0)))
    await until(lambda: len(scripted.servicer.seen) == 20)
    scripted.servicer.stall.set()
    summary, records = await sending
    assert [record.intended for record in records] == pytest.approx([i / 50 for i in range(20)])
    # All were sent before the first was answered, and none before its time.
    assert min(record.end for record in records) >= max(record.sent for record in records)
    for record in records:
        assert record.delay >= 0
        assert record.ttft is None  # a reply that is not streamed has no first token
    assert summary["ok"] == 20
    assert summary["requests_per_second"] == pytest.approx(20 / max(record.end for record in records))


async def test_stall_shows_in_the_latency_from_the_intended_send(scripted: RunningServer) -> None:
    """Coordinated omission: with one request under way at a time, a server that stands still for 0.5 s holds back those
    scheduled meanwhile. Timed from when they were sent they would all look fast."""
    what = plan(CLF, rate=20, duration=1.0, arrivals="constant", max_in_flight=1, warm_up=0)

    async def stall() -> None:
        await scripted.servicer.arrived.wait()
        await asyncio.sleep(0.5)
        scripted.servicer.stall.set()

    scripted.servicer.stall.clear()
    (_, records), _ = await asyncio.gather(run(scripted, what), stall())
    assert len(records) == 20
    first, *others = records
    assert first.latency >= 0.49
    assert all(record.sent >= first.end for record in others)  # none of them met the stall after it was sent
    for record in others[:7]:  # one every 50 ms, and each waited for the rest of the stall
        assert record.latency > record.delay > 0.1  # the wait is told apart as the client's own delay


async def test_closed_loop_keeps_so_many_under_way(scripted: RunningServer) -> None:
    scripted.servicer.classify_seconds = 0.1
    summary, records = await run(scripted, plan(CLF, concurrency=4, duration=0.55))
    moments = sorted(itertools.chain(*(((r.sent or 0, 1), (r.end or 0, -1)) for r in records)))
    under_way = list(itertools.accumulate(step for _, step in moments))
    assert max(under_way) == 4
    # Whoever was answered before the end sent another one.
    assert len(records) >= 4 + sum(record.end < 0.5 for record in records)
    assert summary["requests_per_second"] <= 41
    assert summary["failed"] == 0


async def test_rows_and_adapters_alternate_as_planned(scripted: RunningServer) -> None:
    summary, records = await run(scripted, plan(CLF, LONG, rate=100, duration=0.1, popularity="round_robin"))
    assert [r.adapter for r in records[:4]] == ["clf@prod", "qa-long", "clf@prod", "qa-long"]
    assert [r.text for r in records if r.adapter == "clf@prod"][:3] == ["AI", "Telecom", "AI"]
    assert records[0].probability == pytest.approx(0.75)
    assert set(summary["per_adapter"]) == {"clf@prod", "qa-long"}  # type: ignore[call-overload]
    assert sum(summary["shares"].values()) == pytest.approx(1)  # type: ignore[attr-defined]


async def test_failures_are_counted_by_reason_and_adapter(scripted: RunningServer) -> None:
    scripted.servicer.errors["bad"] = grpc.StatusCode.RESOURCE_EXHAUSTED
    bad = Subject("bad", "classification", ROWS)
    summary, records = await run(scripted, plan(CLF, bad, rate=50, duration=0.2, popularity="round_robin", warm_up=0))
    assert summary["ok"] == summary["failed"] == len(records) / 2
    assert summary["errors"] == {"EXHAUSTED": len(records) / 2}
    per_adapter = summary["per_adapter"]
    assert isinstance(per_adapter, dict)
    assert per_adapter["bad"]["latency_ms"] is None
    assert per_adapter["clf@prod"]["failed"] == 0


async def test_base_is_asked_without_adapter_and_with_labels(scripted: RunningServer) -> None:
    base = Subject("", "classification", ROWS, labels=("AI", "Telecom"))
    summary, _ = await run(scripted, plan(base, rate=50, duration=0.1))
    assert list(summary["per_adapter"]) == ["(base)"]  # type: ignore[call-overload]
    assert all((r.adapter, list(r.labels)) == ("", ["AI", "Telecom"]) for r in scripted.servicer.seen)


async def test_unreachable_server_is_told_before_anything_is_measured() -> None:
    what = plan(CLF, rate=50, duration=5)
    async with connect("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError, match=r"no server answers at 127\.0\.0\.1:1"):
            await run_load(Asker(client, what.subjects, 5.0), what)


async def test_interrupted_run_keeps_what_it_measured(scripted: RunningServer) -> None:
    what = plan(CLF, rate=50, duration=60)
    ended: list[RequestRecord] = []
    async with connect(scripted.address) as client:
        task = asyncio.create_task(run_load(Asker(client, what.subjects, 5.0), what, ended.append))
        await until(lambda: len(ended) > 3)
        task.cancel()
        summary, records = await task
    assert "interrupted after" in summary["unfinished"]
    assert summary["ok"] > 3
    assert len(records) < len(what.scheduled())


async def test_stopped_run_lets_requests_end(scripted: RunningServer) -> None:
    scripted.servicer.stall.clear()
    what = plan(CLF, rate=50, duration=60)
    async with connect(scripted.address) as client:
        load = LoadRun(Asker(client, what.subjects, 5.0))
        task = asyncio.create_task(load.open_loop(what.scheduled()))
        await until(lambda: scripted.servicer.seen)
        load.stop()
        await asyncio.sleep(0.2)  # the next one would have been sent, and what is under way is let alone
        scripted.servicer.stall.set()
        await asyncio.wait_for(task, 30)
    assert load.records
    assert all(record.ok for record in load.records)


async def test_defect_of_the_client_is_counted_and_the_run_goes_on() -> None:
    async def broken(record: RequestRecord, now: object) -> None:
        raise KeyError("oops")

    load = LoadRun(broken)
    await load.open_loop(plan(CLF, rate=100, duration=0.05, arrivals="constant").scheduled())
    assert [record.reason for record in load.records] == ["CLIENT_KeyError"] * 5


async def test_records_are_one_line_of_json_each(scripted: RunningServer, tmp_path: Path) -> None:
    what = plan(LONG, rate=50, duration=0.1, arrivals="constant", warm_up=0)
    path = tmp_path / "records.jsonl"
    async with connect(scripted.address) as client:
        with path.open("w") as out:
            await run_load(Asker(client, what.subjects, 5.0), what, lambda record: write_record(record, out))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 5
    wanted = "intended sent first end chunks output_tokens adapter revision digest residency queue_seconds load_seconds"
    wanted += " status reason text latency delay ttft tpot"
    assert set(wanted.split()) <= set(lines[0])
    assert lines[0]["text"] == "word " * 5


def test_percentiles_match_hand_computation() -> None:
    figures = spread([0.001 * value for value in range(1, 102)] + [None])
    assert figures is not None
    assert (figures["p50"], figures["p90"], figures["p99"]) == pytest.approx((51, 91, 100))
    assert figures["count"] == 101
    assert figures["max"] == pytest.approx(101)
    assert spread([None]) is None


def test_rates_of_adapters_add_up_to_the_whole() -> None:
    records = [
        RequestRecord(
            i, "ab"[i % 2], "short_qa", 0, i * 0.1, sent=i * 0.1, end=i * 0.1 + 0.1, status="ok", output_tokens=3
        )
        for i in range(10)
    ]
    summary = summarise(records)
    parts = summary["per_adapter"]
    assert isinstance(parts, dict)
    assert sum(part["requests_per_second"] for part in parts.values()) == pytest.approx(summary["requests_per_second"])
    assert summary["output_tokens_per_second"] == pytest.approx(30)


@pytest.mark.parametrize("shape", [{}, {"rate": 1.0, "concurrency": 1}, {"concurrency": 0}])
def test_plan_needs_exactly_one_shape(shape: dict[str, float]) -> None:
    with pytest.raises(InvalidError):
        plan(CLF, duration=1, **shape)
