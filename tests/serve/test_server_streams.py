"""Streams, cancellation, deadlines, overload, draining, and the death of the engine."""

import asyncio
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import generate_latest

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_serve import app
from loradeck_serve.engine.base import EngineAdapter
from loradeck_serve.grpc import doors, operations
from loradeck_serve.grpc.doors import ADAPTERS, INFERENCE
from tests.serve.conftest import Running, Start
from tests.serve.errors import describe, failure
from tests.serve.fake_engine import FakeEngine
from tests.serve.waiting import until

LONG = inference.AnswerLongRequest(adapter="long", question="q", context="c")
CLASSIFY = inference.ClassifyRequest(adapter="clf", text="x")


async def health(running: Running, service: str = INFERENCE) -> int:
    """Health of a service at its door."""
    doors = running.server.addresses
    async with grpc.aio.insecure_channel(str(doors.admin if service == ADAPTERS else doors.inference)) as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    assert isinstance(reply.status, int)
    return reply.status


async def busy(engine: FakeEngine) -> None:
    """Wait until a request has reached the engine."""
    await until(engine.running.total)


async def idle(running: Running) -> None:
    """Wait until the engine has nothing to do."""
    await until(lambda: not running.engine.running.total())


async def test_stream_is_chunks_and_one_final_that_equals_them(start: Start) -> None:
    running = await start()
    messages = [m async for m in running.inference.AnswerLong(LONG)]
    kinds = [m.WhichOneof("event") for m in messages]
    assert kinds == ["chunk"] * (len(kinds) - 1) + ["final"]
    final = messages[-1].final
    assert final.text == "".join(m.chunk.text for m in messages[:-1]) != ""
    assert all(m.chunk.text and m.chunk.tokens >= 1 for m in messages[:-1])
    assert final.usage.output_tokens == len(running.engine.tokens)
    assert final.finish_reason == inference.FINISH_REASON_STOP


async def test_unset_sampling_takes_the_tasks_defaults_and_set_fields_win(start: Start) -> None:
    running = await start()
    _ = [m async for m in running.inference.AnswerLong(LONG)]
    sampling = inference.Sampling(temperature=0.5, top_p=0.9, top_k=3, seed=7, max_tokens=4)
    request = inference.AnswerLongRequest(adapter="long", question="q", context="c", sampling=sampling)
    last = [m async for m in running.inference.AnswerLong(request)][-1]
    first, second = running.engine.settings
    assert (first.max_tokens, first.temperature, first.top_p, first.top_k, first.seed) == (24, 0.0, 1.0, 0, None)
    assert second.max_tokens == 4
    assert (second.temperature, second.top_k, second.seed) == (0.5, 3, 7)
    assert second.top_p == pytest.approx(0.9)
    assert last.final.finish_reason == inference.FINISH_REASON_LENGTH


async def test_steps_are_asked_for_only_where_somebody_reads_them(start: Start) -> None:
    running = await start()
    stop = inference.Sampling(stop=["never"])
    await running.inference.AnswerShort(inference.AnswerShortRequest(adapter="short", question="q", context="c"))
    await running.inference.AnswerShort(
        inference.AnswerShortRequest(adapter="short", question="q", context="c", sampling=stop)
    )
    _ = [m async for m in running.inference.AnswerLong(LONG)]
    assert [settings.whole for settings in running.engine.settings] == [True, False, False]


async def test_stop_string_ends_the_answer_and_is_not_part_of_it(start: Start) -> None:
    running = await start()
    whole = [m async for m in running.inference.AnswerLong(LONG)][-1].final.text
    stop = whole[3:6]
    request = inference.AnswerLongRequest(
        adapter="long", question="q", context="c", sampling=inference.Sampling(stop=[stop])
    )
    messages = [m async for m in running.inference.AnswerLong(request)]
    assert messages[-1].final.text == whole[: whole.index(stop)]
    assert messages[-1].final.finish_reason == inference.FINISH_REASON_STOP
    assert "".join(m.chunk.text for m in messages[:-1]) == messages[-1].final.text


async def test_cancelled_stream_is_aborted_in_the_engine_and_disturbs_no_neighbour(start: Start) -> None:
    running = await start(engine={"step_seconds": 0.02})
    neighbour = asyncio.ensure_future(running.inference.AnswerShort(
        inference.AnswerShortRequest(adapter="short", question="q", context="c")
    ))  # fmt: skip
    call = running.inference.AnswerLong(LONG)
    await call.read()
    call.cancel()
    await idle_of(running, "long")
    assert len(running.engine.aborted) == 1
    assert (await neighbour).answer


async def idle_of(running: Running, name: str) -> None:
    """Wait until no request of an adapter is in the engine."""
    for _ in range(100):
        reply = await running.admin.ListAdapters(adapters.ListAdaptersRequest())
        if not any(a.running_requests for a in reply.adapters if a.name == name):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{name} still runs")


async def test_cancelled_unary_call_leaves_the_engine(start: Start) -> None:
    running = await start()
    running.engine.gate.clear()
    call = running.inference.Classify(CLASSIFY)
    asyncio.ensure_future(call)  # noqa: RUF006
    await busy(running.engine)
    call.cancel()
    await idle(running)


async def test_passed_deadline_ends_the_request_in_the_engine(start: Start) -> None:
    running = await start()
    running.engine.gate.clear()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await running.inference.Classify(CLASSIFY, timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await idle(running)


async def test_call_without_deadline_gets_the_servers(start: Start) -> None:
    running = await start(limits={"default_deadline_seconds": 0.2})
    running.engine.gate.clear()
    failed = await failure(running.inference.Classify(CLASSIFY))
    assert (failed.code, failed.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    await idle(running)


async def test_full_queue_is_exhausted_with_a_retry_time(start: Start) -> None:
    running = await start(limits={"concurrent": 1, "queue": 2})
    running.engine.gate.clear()
    calls = [asyncio.ensure_future(running.inference.Classify(CLASSIFY))]
    await busy(running.engine)
    calls += [asyncio.ensure_future(running.inference.Classify(CLASSIFY)) for _ in range(2)]
    await asyncio.sleep(0.2)
    failed = await failure(running.inference.Classify(CLASSIFY))
    assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert failed.retry_seconds is not None
    assert 0 < failed.retry_seconds <= 30
    running.engine.gate.set()
    assert all([(await call).label for call in calls])


async def test_more_adapters_than_slots_and_places_are_all_served(start: Start, deck: object) -> None:
    running = await start(engine={"step_seconds": 0.005}, host_adapters=2)
    requests = [
        running.inference.Classify(CLASSIFY),
        running.inference.Classify(inference.ClassifyRequest(adapter="clf@2", text="x")),
        running.inference.Classify(inference.ClassifyRequest(adapter="clf-text", text="x")),
        running.inference.AnswerShort(inference.AnswerShortRequest(adapter="short", question="q", context="c")),
        running.inference.Classify(inference.ClassifyRequest(text="x", labels=["a", "b"])),
    ]
    replies = await asyncio.gather(*requests)
    assert len(replies) == 5
    assert running.engine.most_distinct <= 2
    assert len(running.engine.loads) == 4


async def test_one_load_serves_all_who_wait(start: Start) -> None:
    running = await start()
    running.engine.load_gate.clear()
    asked = [running.inference.Classify(CLASSIFY) for _ in range(20)]
    await until(lambda: running.server._queue.waiting == 20 and bool(running.engine.loading))
    running.engine.load_gate.set()
    replies = await asyncio.gather(*asked)
    assert len(running.engine.loads) == 1
    assert {r.provenance.residency for r in replies} == {inference.RESIDENCY_REMOTE}
    assert all(r.provenance.load_time.ToNanoseconds() > 0 for r in replies)
    again = await running.inference.Classify(CLASSIFY)
    assert again.provenance.residency == inference.RESIDENCY_HOT
    assert again.provenance.load_time.ToNanoseconds() == 0


async def test_first_requests_of_a_fresh_server_may_come_all_at_once(start: Start) -> None:
    running = await start(limits={"concurrent": 64})
    names = ["clf", "clf-text", "clf@2"] * 20
    replies = await asyncio.gather(
        *(running.inference.Classify(inference.ClassifyRequest(adapter=name, text="x")) for name in names)
    )
    assert len(replies) == len(names)


async def test_stop_lets_running_requests_end_and_refuses_new_ones(start: Start) -> None:
    running = await start(engine={"step_seconds": 0.05})
    call = aiter(running.inference.AnswerLong(LONG))
    await anext(call)
    running.server.stop()
    await asyncio.sleep(0.05)
    assert await health(running) == health_pb2.HealthCheckResponse.NOT_SERVING
    failed = await failure(running.inference.Classify(CLASSIFY))
    assert (failed.code, failed.reason) == ("UNAVAILABLE", "DRAINING")
    assert failed.retry_seconds
    assert [m async for m in call][-1].final.text
    await asyncio.wait_for(running.task, 10)
    assert running.engine.stopped


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Doors that wait for callers longer than a busy machine makes a caller wait."""
    monkeypatch.setattr(doors, "_QUIET_SECONDS", 3.0)
    monkeypatch.setattr(doors, "_MOMENT_SECONDS", 3.0)
    monkeypatch.setattr(doors, "_LATE_SECONDS", 60.0)
    monkeypatch.setattr(app, "_TURNING_SECONDS", 60.0)
    return monkeypatch


async def test_stopping_doors_refuse_until_callers_have_turned_away(start: Start, patient: pytest.MonkeyPatch) -> None:
    running = await start(drain_seconds=60)
    await running.inference.Classify(CLASSIFY)
    running.server.stop()
    # No request runs, so nothing else keeps the doors open.
    for _ in range(20):
        for call in (
            running.inference.Classify(CLASSIFY),
            running.admin.LoadAdapter(adapters.LoadAdapterRequest(adapter="clf")),
        ):
            failed = await failure(call)
            assert (failed.code, failed.reason) == ("UNAVAILABLE", "DRAINING")
        # Who only looks may go on.
        await running.admin.ListAdapters(adapters.ListAdaptersRequest())
        await asyncio.sleep(0.02)
    assert not running.task.done()
    await asyncio.wait_for(running.task, 30)


async def test_callers_who_never_turn_away_hold_a_stop_up_only_so_long(
    start: Start, patient: pytest.MonkeyPatch
) -> None:
    patient.setattr(app, "_TURNING_SECONDS", 0.5)
    running = await start(drain_seconds=60)
    await running.inference.Classify(CLASSIFY)
    running.server.stop()
    begin = time.monotonic()
    while not running.task.done():
        assert time.monotonic() - begin < 30
        with pytest.raises(grpc.RpcError):
            await running.inference.Classify(CLASSIFY)
        await asyncio.sleep(0.01)
    assert time.monotonic() - begin >= 0.5


async def test_stop_waits_for_a_running_call_of_the_admin_door(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_TURNING_SECONDS", 0.1)
    monkeypatch.setattr(app, "_LAST_WRITES_SECONDS", 0.1)
    running = await start(drain_seconds=60)
    begun, load = asyncio.Event(), running.engine.load

    async def slowly(adapter: EngineAdapter) -> None:
        begun.set()
        await asyncio.sleep(1)
        await load(adapter)

    monkeypatch.setattr(running.engine, "load", slowly)
    loading = asyncio.ensure_future(running.admin.LoadAdapter(adapters.LoadAdapterRequest(adapter="clf")))
    await begun.wait()
    running.server.stop()
    assert (await loading).adapter.name == "clf"


async def test_stop_lets_a_batch_end_whole_and_refuses_before_it_looks_at_a_request(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_TURNING_SECONDS", 0.1)
    running = await start(drain_seconds=60, limits={"concurrent": 4}, engine={"step_seconds": 0.05})
    running.engine.gate.clear()
    texts = [f"text {number}" for number in range(60)]
    batch = asyncio.ensure_future(
        running.inference.BatchClassify(inference.BatchClassifyRequest(adapter="clf", texts=texts))
    )
    await busy(running.engine)
    running.server.stop()
    failed = await failure(running.inference.Classify(inference.ClassifyRequest(adapter="nosuch", text="x")))
    assert (failed.code, failed.reason) == ("UNAVAILABLE", "DRAINING")
    running.engine.gate.set()
    assert len((await batch).results) == len(texts)


async def test_engine_that_comes_back_does_not_open_a_stopping_server(
    start: Start, patient: pytest.MonkeyPatch
) -> None:
    running = await start(drain_seconds=60)
    running.server.stop()
    assert (await failure(running.inference.Classify(CLASSIFY))).reason == "DRAINING"
    running.engine.die()
    await until(lambda: len(running.engines) == 2)
    for _ in range(20):
        failed = await failure(running.inference.Classify(CLASSIFY))
        assert (failed.code, failed.reason) == ("UNAVAILABLE", "DRAINING")
        assert await health(running) == health_pb2.HealthCheckResponse.NOT_SERVING
        await asyncio.sleep(0.02)


async def test_stop_waits_no_longer_than_the_bound(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    # For a busy machine: who is cut off is told so in time.
    monkeypatch.setattr(operations, "_ABORT_SECONDS", 20.0)
    monkeypatch.setattr(app, "_LAST_WRITES_SECONDS", 20.0)
    running = await start(drain_seconds=0.3)
    running.engine.gate.clear()
    call = asyncio.ensure_future(running.inference.Classify(CLASSIFY))
    await busy(running.engine)
    stream = running.inference.AnswerLong(LONG)
    streaming = asyncio.ensure_future(failure(stream))
    await until(lambda: sum(running.engine.running.values()) == 2)
    running.server.stop()
    for failed in (await failure(call), await streaming):
        assert (failed.code, failed.reason) == ("UNAVAILABLE", "DRAINING")
        assert failed.metadata["request_id"]
        assert failed.retry_seconds
    await asyncio.wait_for(running.task, 30)
    text = generate_latest(running.server.metrics.registry).decode()
    assert 'code="UNAVAILABLE"' in text
    assert 'code="CANCELLED"' not in text


async def test_stop_ends_watches(start: Start) -> None:
    running = await start()
    watch = running.admin.WatchAdapters(adapters.WatchAdaptersRequest())
    reading = asyncio.create_task(failure(watch))
    await asyncio.sleep(0.1)
    running.server.stop()
    failed = await asyncio.wait_for(reading, 5)
    assert (failed.code, failed.reason) == ("UNAVAILABLE", "DRAINING")


async def test_dead_engine_is_restarted_with_what_it_held(start: Start) -> None:
    running = await start()
    assert await health(running) == health_pb2.HealthCheckResponse.SERVING
    assert await health(running, ADAPTERS) == health_pb2.HealthCheckResponse.SERVING
    digest = (await running.inference.Classify(CLASSIFY)).provenance.digest
    first = running.engine
    first.gate.clear()
    caught = asyncio.ensure_future(running.inference.Classify(CLASSIFY))
    await busy(first)
    first.die()
    failed = await failure(caught)
    assert failed.code == "UNAVAILABLE"
    await until(lambda: len(running.engines) == 2)

    async def serving() -> bool:
        return await health(running) == health_pb2.HealthCheckResponse.SERVING

    await until(serving)
    assert first.stopped
    assert list(running.engine.loaded) == [digest]
    assert (await running.inference.Classify(CLASSIFY)).provenance.digest == digest


async def test_requests_that_wait_while_the_engine_dies_are_answered_or_told_to_come_back(start: Start) -> None:
    running = await start(limits={"concurrent": 1})
    await running.inference.Classify(CLASSIFY)
    first = running.engine
    first.gate.clear()
    base = inference.ClassifyRequest(text="x", labels=["a", "b"])
    calls = [asyncio.ensure_future(running.inference.Classify(r)) for r in (CLASSIFY, CLASSIFY, base, CLASSIFY, base)]
    await busy(first)
    await asyncio.sleep(0.1)
    first.die()
    results = await asyncio.gather(*calls, return_exceptions=True)
    failed = [describe(result) for result in results if isinstance(result, grpc.RpcError)]
    assert failed, "the request in the engine cannot have been answered"
    assert {f.code for f in failed} == {"UNAVAILABLE"}
    assert all(result.label for result in results if not isinstance(result, BaseException))


async def test_server_gives_up_on_an_engine_that_keeps_dying(start: Start) -> None:
    running = await start(engine_restarts=0)
    running.engine.die()
    await asyncio.wait([running.task], timeout=10)
    assert running.task.done()
    error = running.task.exception()
    assert getattr(error, "reason", "") == "ENGINE_DEAD"
    running.task = asyncio.create_task(asyncio.sleep(0))


async def test_label_tokens_score_with_one_token_each_and_text_labels_with_their_text(start: Start) -> None:
    running = await start()
    reply = await running.inference.Classify(CLASSIFY)
    assert reply.method == inference.SCORING_METHOD_LABEL_TOKENS
    assert sum(p.probability for p in reply.probabilities) == pytest.approx(1)
    assert [p.probability for p in reply.probabilities] == sorted(
        (p.probability for p in reply.probabilities), reverse=True
    )
    assert reply.usage.output_tokens == 0
    text = await running.inference.Classify(inference.ClassifyRequest(adapter="clf-text", text="x"))
    assert text.method == inference.SCORING_METHOD_TEXT_MEAN
    two = await running.inference.Classify(
        inference.ClassifyRequest(adapter="clf", text="x", labels=["Health", "Education"])
    )
    assert {p.label for p in two.probabilities} == {"Health", "Education"}


async def test_batch_keeps_the_order_of_its_texts(start: Start) -> None:
    running = await start()
    texts = [f"text number {'one ' * n}" for n in range(1, 80)]
    reply = await running.inference.BatchClassify(inference.BatchClassifyRequest(adapter="clf", texts=texts))
    counts = [r.usage.prompt_tokens for r in reply.results]
    assert len(counts) == len(texts)
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


async def test_request_id_is_the_callers_or_a_new_one(start: Start) -> None:
    running = await start()
    call = running.inference.Classify(CLASSIFY, metadata=(("x-request-id", "abc-1"),))
    assert (await call).provenance.request_id == "abc-1"
    assert dict(await call.trailing_metadata())["x-request-id"] == "abc-1"
    other = (await running.inference.Classify(CLASSIFY)).provenance.request_id
    assert len(other) == 32
