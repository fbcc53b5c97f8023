"""Traces: where a request spent its time, below the caller's own trace, and nothing of what was said."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import loradeck.inference.v1 as inference
from loradeck_registry.errors import InvalidError
from loradeck_serve.config import Tracing, load_config
from loradeck_serve.tracing.stages import MOST, Trail
from loradeck_serve.tracing.tracer import Tracer, start_tracer
from tests.serve.conftest import Running, Start
from tests.serve.deck import Deck

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=x"), ("x-request-id", "mine"))
SECRET = "zebra-crossing-4711"
LONG = inference.AnswerLongRequest(adapter="long", question=f"What of {SECRET}?", context=f"The {SECRET}.")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Every span of servers that are started from here on."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("loradeck_serve.app.start_tracer", lambda settings: Tracer(provider))
    yield exporter
    provider.shutdown()


async def read(running: Running, request: Any = LONG, metadata: Any = PARENT) -> None:
    """Read a stream to its end."""
    async for _ in running.inference.AnswerLong(request, metadata=metadata):
        pass


async def by_name(exporter: InMemorySpanExporter, count: int) -> Mapping[str, ReadableSpan]:
    """The spans, once there are `count`: the last one is made after the caller has its answer."""
    begin = time.monotonic()
    while len(found := exporter.get_finished_spans()) < count:
        assert time.monotonic() - begin < 30, [span.name for span in found]
        await asyncio.sleep(0.01)
    return {span.name: span for span in found}


def facts(span: ReadableSpan) -> Mapping[str, Any]:
    """Attributes."""
    return dict(span.attributes or {})


async def test_one_request_shows_load_queue_prefill_and_decode_in_order(
    start: Start, spans: InMemorySpanExporter
) -> None:
    running = await start(engine={"step_seconds": 0.01})
    running.engine.load_seconds = 0.05
    await read(running)
    found = await by_name(spans, 5)
    whole = found.pop("loradeck.inference.v1.InferenceService/AnswerLong")
    assert list(found) == ["load", "queue", "prefill", "decode"]
    assert whole.start_time is not None
    assert whole.end_time is not None
    at = whole.start_time
    for span in found.values():
        assert span.parent is not None
        assert span.parent.span_id == whole.context.span_id
        assert span.start_time is not None
        assert span.end_time is not None
        assert at <= span.start_time <= span.end_time <= whole.end_time
        at = span.end_time
    seconds = {name: (span.end_time - span.start_time) / 1e9 for name, span in found.items()}  # type: ignore[operator]
    assert seconds["load"] >= 0.05
    assert seconds["decode"] >= 0.05
    assert facts(found["load"]) == {"loradeck.residency": "remote"}
    assert facts(found["prefill"])["loradeck.prompt_tokens"] == len(running.engine.prompts[-1])
    assert abs(whole.end_time / 1e9 - time.time()) < 5


async def test_trace_goes_on_where_the_caller_began_it(start: Start, spans: InMemorySpanExporter) -> None:
    running = await start()
    await read(running)
    whole = (await by_name(spans, 5))["loradeck.inference.v1.InferenceService/AnswerLong"]
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert whole.parent is not None
    assert f"{whole.parent.span_id:016x}" == SPAN
    assert whole.context.trace_state.get("vendor") == "x"
    told = facts(whole)
    assert told["loradeck.request_id"] == "mine"
    assert (told["loradeck.adapter"], told["rpc.response.status_code"]) == ("long", "OK")


async def test_caller_that_does_not_sample_gets_no_trace(start: Start, spans: InMemorySpanExporter) -> None:
    running = await start()
    await read(running, metadata=(("traceparent", f"00-{TRACE}-{SPAN}-00"),))
    await read(running, metadata=(("traceparent", "nonsense"),))
    await by_name(spans, 5)
    assert len({span.context.trace_id for span in spans.get_finished_spans()}) == 1


async def test_classification_and_base_have_their_stages(start: Start, spans: InMemorySpanExporter) -> None:
    running = await start()
    await running.inference.Classify(inference.ClassifyRequest(adapter="clf", text="x"))
    assert {"load", "queue", "prefill"} <= set(await by_name(spans, 4))
    spans.clear()
    await read(running, inference.AnswerLongRequest(question="q", context="c"))
    assert list(await by_name(spans, 4)) == [
        "queue", "prefill", "decode", "loradeck.inference.v1.InferenceService/AnswerLong"
    ]  # fmt: skip


async def test_refused_load_shows_where_it_ended(start: Start, deck: Deck, spans: InMemorySpanExporter) -> None:
    running = await start()
    running.engine.refuse.add(deck.registry.resolve("long").digest)
    with suppress(grpc.RpcError):
        await read(running)
    found = await by_name(spans, 2)
    whole = found.pop("loradeck.inference.v1.InferenceService/AnswerLong")
    assert [facts(span) for span in found.values()] == [{"loradeck.residency": "failed"}]
    assert facts(whole)["loradeck.reason"] == "ENGINE_REFUSED"
    # What is wrong with an adapter is no fault of the server's.
    assert whole.status.status_code is StatusCode.UNSET


async def test_span_tells_nothing_of_what_was_said(start: Start, spans: InMemorySpanExporter) -> None:
    running = await start()
    await read(running)
    with suppress(grpc.RpcError):
        await running.inference.Classify(inference.ClassifyRequest(adapter="clf", text=SECRET, labels=[SECRET]))
    await by_name(spans, 6)
    assert all(SECRET not in span.to_json() for span in spans.get_finished_spans())


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_collector_gets_the_spans_by_otlp(start: Start) -> None:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        running = await start(tracing={"endpoint": f"http://127.0.0.1:{port}", "service": "deck"})
        await read(running)
        running.server.stop()
        await asyncio.wait_for(running.task, 40)
        resources = [found for request in collector.requests for found in request.resource_spans]
        assert {a.key: a.value.string_value for a in resources[0].resource.attributes}["service.name"] == "deck"
        names = [span.name for found in resources for scope in found.scope_spans for span in scope.spans]
        assert sorted(names) == [
            "decode",
            "load",
            "loradeck.inference.v1.InferenceService/AnswerLong",
            "prefill",
            "queue",
        ]
    finally:
        server.stop(0).wait()


async def test_absent_collector_disturbs_neither_requests_nor_the_stop(start: Start) -> None:
    running = await start(tracing={"endpoint": "http://127.0.0.1:1"})
    await read(running)
    begin = time.monotonic()
    running.server.stop()
    await asyncio.wait_for(running.task, 40)
    assert time.monotonic() - begin < 15


def test_traces_are_off_unless_a_collector_is_named() -> None:
    assert start_tracer(Tracing()) is None


@pytest.mark.parametrize("endpoint", ["collector:4317", "ftp://collector", "http://"])
def test_bad_collector_is_refused_in_one_line(endpoint: str) -> None:
    with pytest.raises(InvalidError, match=r"tracing\.endpoint") as raised:
        load_config(None, {"base": "x", "tracing.endpoint": endpoint}, {})
    assert "\n" not in raised.value.message


def test_stages_of_one_call_are_bounded() -> None:
    trail = Trail()
    for _ in range(MOST + 5):
        trail.note("queue", 0, 1)
    assert (len(trail.stages), trail.left_out) == (MOST, 5)
