"""The synchronous client. One client serves any number of threads."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

import loradeck.inference.v1 as inference
from loradeck_client import convert
from loradeck_client.access import Access
from loradeck_client.channel import DEFAULT_TIMEOUT, Settings, open_sync, remaining
from loradeck_client.errors import LoradeckError, ServerError, from_rpc_error
from loradeck_client.results import Answer, Chunk, Classification, Sampling
from loradeck_client.retry import RetryPolicy

T = TypeVar("T")


class Caller:
    """A channel, and calls on it with deadlines, typed errors and retries."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.channel = open_sync(settings.target, settings.access)

    def unary(
        self,
        method: Callable[..., Any],
        request: Any,
        timeout: float | None,
        request_id: str | None,
        again: bool = True,
    ) -> Any:
        """Call, and if `again`, try again while the policy and the deadline allow it. Raises LoradeckError."""
        deadline = self.settings.deadline(timeout)
        attempt = 0
        while True:
            attempt += 1
            try:
                return method(request, timeout=remaining(deadline), metadata=self.settings.metadata(request_id))
            except grpc.RpcError as error:
                raised = from_rpc_error(error, self.settings.target)
            if not again:
                raise raised
            self.pause(raised, attempt, deadline)

    def pause(self, error: LoradeckError, attempt: int, deadline: float) -> None:
        """Wait before the next try, or raise `error`."""
        wait = self.settings.retry.wait(error, attempt, deadline)
        if wait is None:
            raise error
        time.sleep(wait)


class TextStream:
    """Chunks of an answer as they come; afterwards `final` holds the whole. Retried only before the first chunk.

    Leaving the loop early is not enough to stop the server: call `cancel`, or use the stream in a `with` block.
    """

    def __init__(
        self, caller: Caller, method: Callable[..., Any], request: Any, timeout: float | None, request_id: str | None
    ) -> None:
        self._caller = caller
        self._method = method
        self._request = request
        self._metadata = caller.settings.metadata(request_id)
        self._deadline = caller.settings.deadline(timeout)
        self._call: Any = None
        self._cancelled = False
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
        self._cancelled = True
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
        attempt = 0
        while True:
            attempt += 1
            begun = False
            self._call = self._method(self._request, timeout=remaining(self._deadline), metadata=self._metadata)
            try:
                for message in self._call:
                    begun = True
                    event = convert.stream_event(message)
                    if isinstance(event, Answer):
                        self.final = event
                    else:
                        yield event
                if self.final is None:
                    raise ServerError("the stream ended without its final message", reason="INCOMPLETE")
                return
            except grpc.RpcError as error:
                if self._cancelled:
                    return
                raised = from_rpc_error(error, self._caller.settings.target)
            if begun:
                raise raised
            self._caller.pause(raised, attempt, self._deadline)


class Client:
    """Asks a server's inference door. `timeout` is in seconds and covers a call with all its retries.

    `access`: TLS, a client certificate, an API key. `caller` is whom a server without credentials counts limits
    and draws weighted aliases for, unless it is empty: then user@host.

    Every method raises LoradeckError subclasses: NotFoundError, InvalidError, PreconditionError, ExhaustedError,
    UnavailableError, DeadlineError, ServerError.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8500",
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        caller: str = "",
        access: Access | None = None,
    ) -> None:
        self._caller = Caller(Settings(target, timeout, retry or RetryPolicy(), caller, access or Access()))
        self._stub: Any = inference.InferenceServiceStub(self._caller.channel)  # type: ignore[no-untyped-call]

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
        return convert.classification(self._caller.unary(self._stub.Classify, request, timeout, request_id))

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
        reply = self._caller.unary(self._stub.BatchClassify, request, timeout, request_id)
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
        return convert.short_answer(self._caller.unary(self._stub.AnswerShort, request, timeout, request_id))

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
        return TextStream(self._caller, self._stub.AnswerLong, request, timeout, request_id)

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
        return TextStream(self._caller, self._stub.Generate, request, timeout, request_id)

    def close(self) -> None:
        """Close the channel; running calls are cancelled."""
        self._caller.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
