"""A server that answers from a script, behind a real port."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference


def failure(code: int, *details: Message, message: str = "no") -> Any:
    """A status with details, to abort with."""
    packed = []
    for detail in details:
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    return rpc_status.to_status(status_pb2.Status(code=code, message=message, details=packed))


def info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    """An ErrorInfo of loradeck's domain."""
    return error_details_pb2.ErrorInfo(reason=reason, domain="loradeck", metadata=metadata)


def retry(seconds: float) -> error_details_pb2.RetryInfo:
    """A RetryInfo."""
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(int(seconds * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def wait_for(check: Callable[[], Any]) -> None:
    """Wait until `check()` is true. Raises AssertionError after a minute."""
    for _ in range(6000):
        if check():
            return
        time.sleep(0.01)
    raise AssertionError("did not happen in a minute")


UNAVAILABLE = failure(code_pb2.UNAVAILABLE, info("DRAINING"))


class Bare(NamedTuple):
    """A status without details."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: None = None


CANCELLED = Bare(grpc.StatusCode.CANCELLED, "CANCELLED")
"""What gRPC itself sends for a call that it ends."""
PROVENANCE = inference.Provenance(request_id="r", adapter="clf", revision=7, digest="sha256:x", residency=1)
USAGE = inference.Usage(prompt_tokens=5, output_tokens=2, cached_prompt_tokens=1)
FINAL = inference.AnswerLongResponse(
    final=inference.GenerationFinal(text="ab", finish_reason=1, provenance=PROVENANCE, usage=USAGE)
)


def chunk(text: str) -> inference.AnswerLongResponse:
    """A chunk."""
    return inference.AnswerLongResponse(chunk=inference.GenerationChunk(text=text, tokens=1))


@dataclass
class Script:
    """What each coming call gets: a reply, a status to abort with, or for streams a list of both."""

    address: str = ""
    calls: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def next(self, method: str, request: Any, context: Any) -> Any:
        """Note the call, and give its answer."""
        self.calls.append((method, request, dict(context.invocation_metadata())))
        return self.answers.pop(0)


class Inference(inference.InferenceServiceServicer):
    """Plays the script."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def _unary(self, method: str, request: Any, context: Any) -> Any:
        answer = self.script.next(method, request, context)
        if not isinstance(answer, Message):
            context.abort_with_status(answer)
        return answer

    def Classify(self, request: Any, context: Any) -> Any:
        return self._unary("Classify", request, context)

    def BatchClassify(self, request: Any, context: Any) -> Any:
        return self._unary("BatchClassify", request, context)

    def AnswerShort(self, request: Any, context: Any) -> Any:
        return self._unary("AnswerShort", request, context)

    def AnswerLong(self, request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(lambda: self.script.ended.append("AnswerLong"))
        for answer in self.script.next("AnswerLong", request, context):
            if callable(answer):
                answer()
            elif isinstance(answer, Message):
                yield answer
            else:
                context.abort_with_status(answer)


class Adapters(adapters.AdapterServiceServicer):
    """Plays the script."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def ListAdapters(self, request: Any, context: Any) -> Any:
        return self.script.next("ListAdapters", request, context)

    def WatchAdapters(self, request: Any, context: Any) -> Iterator[Any]:
        """Says nothing, and ends with its call."""
        ended = threading.Event()
        context.add_callback(ended.set)
        self.script.calls.append(("WatchAdapters", request, {}))
        ended.wait(100)
        yield from ()

    def MoveAlias(self, request: Any, context: Any) -> Any:
        answer = self.script.next("MoveAlias", request, context)
        if not isinstance(answer, Message):
            context.abort_with_status(answer)
        return answer


@pytest.fixture
def script() -> Iterator[Script]:
    """The script of a running server."""
    with scripted() as made:
        yield made


@pytest.fixture
def fleet() -> Iterator[dict[str, Script]]:
    """The scripts of three running servers, by address."""
    with scripted() as first, scripted() as second, scripted() as third:
        yield {made.address: made for made in (first, second, third)}


@contextmanager
def scripted() -> Iterator[Script]:
    """A running server and its script."""
    made = Script()
    server = grpc.server(ThreadPoolExecutor(4))
    inference.add_InferenceServiceServicer_to_server(Inference(made), server)
    adapters.add_AdapterServiceServicer_to_server(Adapters(made), server)
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield made
    finally:
        server.stop(0).wait()
