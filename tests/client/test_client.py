"""The client: typed results and errors, retries, deadlines, streams; sync and asyncio alike."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_client import (
    AdminClient,
    AsyncAdminClient,
    AsyncClient,
    Client,
    ConflictError,
    DeadlineError,
    ExhaustedError,
    InvalidError,
    LoradeckError,
    NotFoundError,
    RetryPolicy,
    Sampling,
    UnavailableError,
    UnimplementedError,
)
from loradeck_client.errors import ServerError
from tests.client.conftest import (
    CANCELLED,
    FINAL,
    PROVENANCE,
    UNAVAILABLE,
    USAGE,
    Script,
    chunk,
    failure,
    info,
    retry,
    wait_for,
)

CLASSIFIED = inference.ClassifyResponse(
    label="a",
    probabilities=[inference.LabelProbability(label="a", probability=0.75)],
    method=1,
    provenance=PROVENANCE,
    usage=USAGE,
)
FAST = RetryPolicy(attempts=3, first_seconds=0.01)
PATIENT = RetryPolicy(attempts=2, first_seconds=100, longest_seconds=100)


def test_result_has_every_field(script: Script) -> None:
    script.answers = [CLASSIFIED]
    with Client(script.address) as client:
        result = client.classify("text", adapter="clf@7", labels=["a", "b"], request_id="mine")
    assert (result.label, result.probabilities[0].probability, result.method) == ("a", 0.75, "label_tokens")
    assert (result.provenance.revision, result.provenance.residency) == (7, "hot")
    assert (result.usage.prompt_tokens, result.usage.cached_prompt_tokens) == (5, 1)
    _, request, metadata = script.calls[0]
    assert (request.adapter, request.text, list(request.labels)) == ("clf@7", "text", ["a", "b"])
    assert metadata["x-request-id"] == "mine"
    assert "@" in metadata["x-loradeck-caller"]


def test_unset_sampling_stays_unset_on_the_wire(script: Script) -> None:
    script.answers = [inference.AnswerShortResponse(answer="x")] * 2
    with Client(script.address) as client:
        client.answer_short("q", sampling=Sampling(temperature=0.0, stop=("x",)))
        client.answer_short("q")
    first, second = script.calls[0][1], script.calls[1][1]
    assert first.sampling.HasField("temperature")
    assert not first.sampling.HasField("max_tokens")
    assert list(first.sampling.stop) == ["x"]
    assert not second.HasField("sampling")


def test_details_of_a_status_become_the_fields_of_the_error(script: Script) -> None:
    bad = error_details_pb2.BadRequest(field_violations=[error_details_pb2.BadRequest.FieldViolation(field="text")])
    script.answers = [failure(code_pb2.INVALID_ARGUMENT, info("EMPTY_FIELD", a="b"), bad, message="`text` is empty")]
    with Client(script.address) as client, pytest.raises(InvalidError) as raised:
        client.classify("")
    error = raised.value
    assert (error.message, error.reason, error.field) == ("`text` is empty", "EMPTY_FIELD", "text")
    assert error.metadata == {"a": "b"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (code_pb2.NOT_FOUND, NotFoundError),
        (code_pb2.ABORTED, ConflictError),
        (code_pb2.RESOURCE_EXHAUSTED, ExhaustedError),
        (code_pb2.INTERNAL, LoradeckError),
    ],
)
def test_errors_that_are_not_retried_reach_the_caller_at_once(
    script: Script, code: int, kind: type[LoradeckError]
) -> None:
    script.answers = [failure(code, info("X"))]
    with Client(script.address, retry=FAST) as client, pytest.raises(kind):
        client.classify("x")
    assert len(script.calls) == 1


def test_unavailable_is_tried_again(script: Script) -> None:
    script.answers = [UNAVAILABLE, UNAVAILABLE, CLASSIFIED]
    with Client(script.address, retry=FAST) as client:
        assert client.classify("x").label == "a"
    assert len(script.calls) == 3


def test_call_that_the_server_cancels_is_tried_again(script: Script) -> None:
    script.answers = [CANCELLED, CLASSIFIED, [CANCELLED], [chunk("ab"), FINAL], CANCELLED, CANCELLED, CANCELLED]
    with Client(script.address, retry=FAST) as client:
        assert client.classify("x").label == "a"
        assert client.answer_long("q").result().text == "ab"
        with pytest.raises(UnavailableError, match=f"{script.address} cut the call off .CANCELLED.") as raised:
            client.classify("x")
    assert raised.value.reason == "CUT_OFF"
    assert not script.answers


def test_calls_of_a_closed_client_say_so_and_are_not_tried_again(script: Script) -> None:
    gate = threading.Event()
    script.answers = [[gate.wait]]
    client = Client(script.address, retry=FAST)
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.answer_long("q").result)
            wait_for(lambda: bool(script.calls))
            client.close()
            for result in (lambda: asked.result(60), lambda: client.classify("x"), client.answer_long("q").result):
                with pytest.raises(ServerError) as raised:
                    result()
                assert raised.value.reason == "CLIENT_CLOSED"
    finally:
        gate.set()
    assert len(script.calls) == 1


def test_client_closed_between_two_tries_says_so(script: Script) -> None:
    script.answers = [UNAVAILABLE, CLASSIFIED]
    client = Client(script.address, retry=RetryPolicy(attempts=2, first_seconds=5))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.classify, "x")
        wait_for(lambda: bool(script.calls))
        client.close()
        with pytest.raises(ServerError) as raised:
            asked.result(60)
    assert raised.value.reason == "CLIENT_CLOSED"


async def test_closing_the_asyncio_client_cancels_no_task_of_its_callers(script: Script) -> None:
    gate = threading.Event()
    script.answers = [[gate.wait]]
    client = AsyncClient(script.address, retry=FAST)
    try:
        asked = asyncio.create_task(client.answer_long("q").result())
        await asyncio.to_thread(wait_for, lambda: bool(script.calls))
        await client.close()
        with pytest.raises(ServerError) as raised:
            await asyncio.wait_for(asked, 60)
        with pytest.raises(ServerError):
            await client.classify("x")
    finally:
        gate.set()
    assert raised.value.reason == "CLIENT_CLOSED"


async def test_watches_of_a_closed_client_say_so(script: Script) -> None:
    client = AdminClient(script.address)
    client.close()
    with pytest.raises(ServerError) as raised:
        next(client.watch())
    assert raised.value.reason == "CLIENT_CLOSED"
    other = AsyncAdminClient(script.address)
    reading = asyncio.ensure_future(anext(other.watch()))
    await asyncio.to_thread(wait_for, lambda: bool(script.calls))
    await other.close()
    with pytest.raises(ServerError):
        await asyncio.wait_for(reading, 60)
    with pytest.raises(ServerError):
        await anext(other.watch())


async def test_asyncio_stream_that_fails_for_good_leaves_nothing_behind(script: Script) -> None:
    script.answers = [[failure(code_pb2.NOT_FOUND, info("NAME_NOT_FOUND"))]]
    async with AsyncClient(script.address) as client:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with pytest.raises(NotFoundError):
                await client.answer_long("q").result()
            gc.collect()
    assert not [w for w in warned if "never awaited" in str(w.message)]


async def test_asyncio_stream_cancelled_between_two_tries_ends_at_once(script: Script) -> None:
    script.answers = [[UNAVAILABLE], [chunk("never"), FINAL]]
    async with AsyncClient(script.address, timeout=200, retry=PATIENT) as client:
        stream = client.answer_long("q")
        read = asyncio.create_task(anext(stream, None))
        await asyncio.to_thread(wait_for, lambda: bool(script.ended))
        # Before or after the client has the failure, for which it would wait.
        await asyncio.sleep(0.1)
        stream.cancel()
        assert await asyncio.wait_for(read, 30) is None
    assert len(script.calls) == 1


def test_stream_cancelled_between_two_tries_is_not_tried_again(script: Script) -> None:
    script.answers = [[UNAVAILABLE], [chunk("never"), FINAL]]
    with Client(script.address, timeout=200, retry=PATIENT) as client:
        stream = client.answer_long("q")
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(list, stream)
            wait_for(lambda: bool(script.ended))
            stream.cancel()
            assert read.result(30) == []
    assert len(script.calls) == 1


def test_attempts_are_bounded(script: Script) -> None:
    script.answers = [UNAVAILABLE] * 9
    with Client(script.address, retry=FAST) as client, pytest.raises(UnavailableError) as raised:
        client.classify("x")
    assert raised.value.reason == "DRAINING"
    assert len(script.calls) == 3


def test_exhausted_is_tried_again_when_the_server_says_when(script: Script) -> None:
    script.answers = [failure(code_pb2.RESOURCE_EXHAUSTED, info("QUEUE_FULL"), retry(0.3)), CLASSIFIED]
    begin = time.monotonic()
    with Client(script.address, retry=FAST) as client:
        assert client.classify("x").label == "a"
    assert time.monotonic() - begin >= 0.3


def test_no_retry_beyond_the_deadline(script: Script) -> None:
    script.answers = [failure(code_pb2.RESOURCE_EXHAUSTED, info("QUEUE_FULL"), retry(60))]
    begin = time.monotonic()
    with Client(script.address, timeout=20, retry=FAST) as client, pytest.raises(ExhaustedError) as raised:
        client.classify("x")
    assert time.monotonic() - begin < 15
    assert raised.value.retry_after == pytest.approx(60)


def test_stream_gives_chunks_then_the_whole(script: Script) -> None:
    script.answers = [[chunk("a"), chunk("b"), FINAL]]
    with Client(script.address) as client:
        stream = client.answer_long("q")
        assert [c.text for c in stream] == ["a", "b"]
    assert stream.final is not None
    assert (stream.final.text, stream.final.finish_reason) == ("ab", "stop")


def test_stream_is_tried_again_before_its_first_chunk_only(script: Script) -> None:
    script.answers = [[UNAVAILABLE], [chunk("a"), UNAVAILABLE], [chunk("never")]]
    with Client(script.address, retry=FAST) as client:
        stream = client.answer_long("q")
        assert next(stream).text == "a"
        with pytest.raises(UnavailableError):
            next(stream)
    assert len(script.calls) == 2


def test_stream_without_its_end_is_an_error(script: Script) -> None:
    script.answers = [[chunk("a")]]
    with Client(script.address) as client, pytest.raises(LoradeckError) as raised:
        client.answer_long("q").result()
    assert raised.value.reason == "INCOMPLETE"


def test_cancelled_stream_ends_on_the_server(script: Script) -> None:
    gate = threading.Event()
    script.answers = [[chunk("a"), gate.wait, chunk("b"), FINAL]]
    with Client(script.address) as client:
        with client.answer_long("q") as stream:
            assert next(stream).text == "a"
        assert list(stream) == []
        wait_for(lambda: script.ended == ["AnswerLong"])
    gate.set()


def test_a_timeout_without_end_is_no_deadline_that_has_passed(script: Script) -> None:
    script.answers = [CLASSIFIED]
    with Client(script.address, timeout=1e300) as client:
        assert client.classify("x", adapter="clf").label


def test_deadline_is_a_typed_error_that_names_the_option(script: Script) -> None:
    gate = threading.Event()
    script.answers = [[gate.wait]]
    with Client(script.address, timeout=0.2) as client, pytest.raises(DeadlineError, match="--timeout"):
        client.answer_long("q").result()
    gate.set()


def test_nobody_at_the_address_is_said_in_one_line() -> None:
    policy = RetryPolicy(attempts=1)
    with Client("127.0.0.1:1", retry=policy) as client, pytest.raises(UnavailableError) as raised:
        client.classify("x")
    assert raised.value.reason == "NOT_REACHABLE"
    assert "loradeck serve" in raised.value.message
    assert "\n" not in raised.value.message


def test_other_door_is_said_in_words() -> None:
    server = grpc.server(ThreadPoolExecutor(1))  # as any server is that does not know the service
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client, pytest.raises(UnimplementedError, match="other door") as raised:
            client.classify("text")
    finally:
        server.stop(None)
    assert raised.value.reason == "WRONG_DOOR"


def test_too_large_a_request_is_said_in_words(script: Script) -> None:
    with Client(script.address) as client, pytest.raises(ExhaustedError, match="send less text") as raised:
        client.classify("x" * 5_000_000)
    assert raised.value.reason == "TOO_LARGE"


def test_list_reads_every_page(script: Script) -> None:
    script.answers = [
        adapters.ListAdaptersResponse(adapters=[adapters.Adapter(name="a", revision=1)], next_page_token="t"),
        adapters.ListAdaptersResponse(adapters=[adapters.Adapter(name="b", revision=2, state=2)]),
    ]
    with AdminClient(script.address) as client:
        found = client.list()
    assert [(a.name, a.state) for a in found] == [("a", ""), ("b", "loaded")]
    assert script.calls[1][1].page_token == "t"


def test_a_move_is_never_tried_twice(script: Script) -> None:
    script.answers = [UNAVAILABLE] * 3
    with AdminClient(script.address, retry=FAST) as client, pytest.raises(UnavailableError):
        client.move_alias("clf", "prod", 2)
    assert len(script.calls) == 1


async def test_asyncio_client_does_the_same(script: Script) -> None:
    script.answers = [UNAVAILABLE, CLASSIFIED, [UNAVAILABLE], [chunk("a"), chunk("b"), FINAL]]
    async with AsyncClient(script.address, retry=FAST) as client:
        assert (await client.classify("x")).label == "a"
        stream = client.answer_long("q")
        assert [c.text async for c in stream] == ["a", "b"]
        assert stream.final is not None
    assert len(script.calls) == 4


async def test_asyncio_stream_can_be_cancelled(script: Script) -> None:
    gate = threading.Event()
    script.answers = [[chunk("a"), gate.wait, FINAL]]
    async with AsyncClient(script.address) as client:
        async with client.answer_long("q") as stream:
            assert (await anext(stream)).text == "a"
        assert [c async for c in stream] == []
        with pytest.raises(LoradeckError) as raised:
            await stream.result()
    assert raised.value.reason == "CANCELLED"
    gate.set()


async def test_asyncio_errors_are_typed(script: Script) -> None:
    script.answers = [failure(code_pb2.NOT_FOUND, info("NAME_NOT_FOUND"))]
    async with AsyncClient(script.address) as client:
        with pytest.raises(NotFoundError) as raised:
            await client.classify("x")
    assert raised.value.reason == "NAME_NOT_FOUND"


def test_client_is_light() -> None:
    code = (
        "import sys, loradeck_client; "
        "print([m for m in ('torch', 'vllm', 'transformers', 'loradeck_serve', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
