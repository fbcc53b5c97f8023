"""The synchronous client. One client serves any number of threads."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

import loradeck.inference.v1 as inference
from loradeck_client import convert
from loradeck_client.access import Access
from loradeck_client.attempts import Attempts
from loradeck_client.channel import DEFAULT_TIMEOUT, Settings, adapter_name, open_sync, remaining
from loradeck_client.endpoints import Endpoint, Endpoints
from loradeck_client.errors import LoradeckError, ServerError, client_closed, from_rpc_error
from loradeck_client.results import Answer, Chunk, Classification, Sampling
from loradeck_client.retry import RetryPolicy

T = TypeVar("T")


@dataclass(frozen=True)
class Connection:
    """A channel to one address, and the stub on it."""

    channel: grpc.Channel
    stub: Any


class Caller:
    """A channel per address, and calls on them with deadlines, typed errors, retries, and the next address."""

    def __init__(self, settings: Settings, stub: Callable[[Any], Any]) -> None:
        """`stub` makes a service's stub on a channel. Raises InvalidError, NotFoundError."""
        self.settings = settings

        def connect(target: str) -> Connection:
            channel = open_sync(target, settings.access)
            return Connection(channel, stub(channel))

        self.endpoints = Endpoints(settings.targets, connect)

    def unary(
        self,
        method: str,
        request: Any,
        timeout: float | None,
        request_id: str | None,
        again: bool = True,
    ) -> Any:
        """Call, and if `again`, try again while the policy and the deadline allow it. Raises LoradeckError."""
        deadline = self.settings.deadline(timeout)
        adapter = adapter_name(request)
        metadata = self.settings.metadata(request_id, adapter)
        attempts = self.attempts(adapter, deadline)
        while True:
            try:
                reply = self.start(attempts.endpoint, method, request, timeout=remaining(deadline), metadata=metadata)
            except grpc.RpcError as error:
                raised = self.failure(error, attempts.endpoint.target)
            else:
                attempts.answered()
                return reply
            if not again:
                raise raised
            time.sleep(attempts.failed(raised))

    def attempts(self, adapter: str, deadline: float) -> Attempts[Connection]:
        """The tries of one request."""
        return Attempts(self.endpoints, self.settings.retry, adapter, deadline)

    def start(self, endpoint: Endpoint[Connection], name: str, request: Any, **settings: Any) -> Any:
        """Call a method of a server. Raises ServerError (CLIENT_CLOSED), and grpc.RpcError."""
        try:
            return getattr(endpoint.connection.stub, name)(request, **settings)
        except ValueError:
            # What gRPC raises for a channel that is closed, which another thread may have done just now.
            if self.endpoints.closed:
                raise client_closed() from None
            raise

    def failure(self, error: grpc.RpcError, target: str) -> LoradeckError:
        """The error of a call to one server."""
        return client_closed() if self.endpoints.closed else from_rpc_error(error, target)

    def close(self) -> None:
        """Close the channels; running calls end with an error (CLIENT_CLOSED)."""
        self.endpoints.closed = True
        for endpoint in self.endpoints.all:
            endpoint.connection.channel.close()


class TextStream:
    """Chunks of an answer as they come; afterwards `final` holds the whole. Retried only before the first chunk.

    Leaving the loop early is not enough to stop the server: call `cancel`, or use the stream in a `with` block.
    """

    def __init__(
        self, caller: Caller, method: str, request: Any, timeout: float | None, request_id: str | None
    ) -> None:
        self._caller = caller
        self._method = method
        self._request = request
        self._adapter = adapter_name(request)
        self._metadata = caller.settings.metadata(request_id, self._adapter)
        self._deadline = caller.settings.deadline(timeout)
        self._call: Any = None
        self._cancelled = threading.Event()
        self.final: Answer | None = None
        """The whole answer, once the stream has ended."""
        self._events = self._run()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the request on the server at once. Does nothing after the end."""
        self._cancelled.set()
        if self._call is not None:
            self._call.cancel()

    def result(self) -> Answer:
        """Read to the end and return the whole answer."""
        for _ in self:
            pass
        if self.final is None:
            raise ServerError("the stream was cancelled before its end", reason="CANCELLED")
        return self.final

    def _run(self) -> Iterator[Chunk]:
        attempts = self._caller.attempts(self._adapter, self._deadline)
        while not self._cancelled.is_set():
            begun = False
            self._call = self._caller.start(
                attempts.endpoint, self._method, self._request, timeout=remaining(self._deadline),
                metadata=self._metadata,
            )  # fmt: skip
            if self._cancelled.is_set():
                # In another thread, which has found the call of the try before.
                self._call.cancel()
            try:
                for message in self._call:
                    if not begun:
                        begun = True
                        attempts.answered()
                    event = convert.stream_event(message)
                    if isinstance(event, Answer):
                        self.final = event
                    else:
                        yield event
                if self.final is None:
                    raise ServerError("the stream ended without its final message", reason="INCOMPLETE")
                return
            except grpc.RpcError as error:
                if self._cancelled.is_set():
                    return
                raised = self._caller.failure(error, attempts.endpoint.target)
            if begun:
                raise raised
            self._cancelled.wait(attempts.failed(raised))


class Client:
    """Asks a server's inference door. `timeout` is in seconds and covers a call with all its retries.

    `access`: TLS, a client certificate, an API key. `caller` is whom a server without credentials counts limits
    and draws weighted aliases for, unless it is empty: then user@host.

    Every method raises LoradeckError subclasses: NotFoundError, InvalidError, PreconditionError, ExhaustedError,
    UnavailableError, DeadlineError, ServerError.
    """

    def __init__(
        self,
        target: str | Sequence[str] = "127.0.0.1:8500",
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        caller: str = "",
        access: Access | None = None,
    ) -> None:
        self._caller = Caller(
            Settings(target, timeout, retry or RetryPolicy(), caller, access or Access()),
            inference.InferenceServiceStub,
        )

    def classify(
        self,
        text: str,
        *,
        adapter: str = "",
        labels: Iterable[str] = (),
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Classification:
        """The most probable label and every candidate's probability; `labels` restrict (the base needs them)."""
        request = convert.classify_request(adapter, text, labels)
        return convert.classification(self._caller.unary("Classify", request, timeout, request_id))

    def batch_classify(
        self,
        texts: Iterable[str],
        *,
        adapter: str = "",
        labels: Iterable[str] = (),
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> list[Classification]:
        """One result per text, in order, all or none."""
        request = convert.batch_request(adapter, texts, labels)
        reply = self._caller.unary("BatchClassify", request, timeout, request_id)
        return [convert.classification(result) for result in reply.results]

    def answer_short(
        self,
        question: str,
        *,
        context: str = "",
        adapter: str = "",
        sampling: Sampling | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """A short answer, whole."""
        request = convert.answer_request("short", adapter, question, context, sampling)
        return convert.short_answer(self._caller.unary("AnswerShort", request, timeout, request_id))

    def answer_long(
        self,
        question: str,
        *,
        context: str = "",
        adapter: str = "",
        sampling: Sampling | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> TextStream:
        """A long answer, streamed."""
        request = convert.answer_request("long", adapter, question, context, sampling)
        return TextStream(self._caller, "AnswerLong", request, timeout, request_id)

    def generate(
        self,
        *,
        fields: Mapping[str, str] | None = None,
        prompt: str | None = None,
        message: str | None = None,
        adapter: str = "",
        sampling: Sampling | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> TextStream:
        """Free generation, streamed. Exactly one of `fields`, `prompt`, `message`."""
        request = convert.generate_request(adapter, fields, prompt, message, sampling)
        return TextStream(self._caller, "Generate", request, timeout, request_id)

    def close(self) -> None:
        """Close the channels; running calls are cancelled."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
