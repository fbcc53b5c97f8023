"""The asyncio client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

import loradeck.inference.v1 as inference
from loradeck_client import convert
from loradeck_client.access import Access
from loradeck_client.attempts import Attempts
from loradeck_client.channel import DEFAULT_TIMEOUT, Settings, adapter_name, open_async, remaining
from loradeck_client.endpoints import Endpoint, Endpoints
from loradeck_client.errors import LoradeckError, ServerError, client_closed, from_rpc_error
from loradeck_client.results import Answer, Chunk, Classification, Sampling
from loradeck_client.retry import RetryPolicy


@dataclass(frozen=True)
class AsyncConnection:
    """A channel to one address, and the stub on it."""

    channel: grpc.aio.Channel
    stub: Any


class AsyncCaller:
    """A channel per address, and calls on them with deadlines, typed errors, retries, and the next address."""

    def __init__(self, settings: Settings, stub: Callable[[Any], Any]) -> None:
        """`stub` makes a service's stub on a channel. Raises InvalidError, NotFoundError."""
        self.settings = settings

        def connect(target: str) -> AsyncConnection:
            channel = open_async(target, settings.access)
            return AsyncConnection(channel, stub(channel))

        self.endpoints = Endpoints(settings.targets, connect)

    async def unary(
        self,
        method: str,
        request: Any,
        timeout: float | None,  # noqa: ASYNC109
        request_id: str | None,
        again: bool = True,
    ) -> Any:
        """Call, and if `again`, try again while the policy and the deadline allow it. Raises LoradeckError."""
        deadline = self.settings.deadline(timeout)
        adapter = adapter_name(request)
        metadata = self.settings.metadata(request_id, adapter)
        attempts = self.attempts(adapter, deadline)
        while True:
            call = self.method(attempts.endpoint, method)
            try:
                reply = await call(request, timeout=remaining(deadline), metadata=metadata)
            except grpc.RpcError as error:
                raised = self.failure(error, attempts.endpoint.target)
            except asyncio.CancelledError:
                self.check_closed()
                raise
            else:
                attempts.answered()
                return reply
            if not again:
                raise raised
            await asyncio.sleep(attempts.failed(raised))

    def attempts(self, adapter: str, deadline: float) -> Attempts[AsyncConnection]:
        """The tries of one request."""
        return Attempts(self.endpoints, self.settings.retry, adapter, deadline)

    def method(self, endpoint: Endpoint[AsyncConnection], name: str) -> Any:
        """A method of a server. Raises ServerError (CLIENT_CLOSED)."""
        if self.endpoints.closed:
            raise client_closed()
        return getattr(endpoint.connection.stub, name)

    def failure(self, error: grpc.RpcError, target: str) -> LoradeckError:
        """The error of a call to one server."""
        return client_closed() if self.endpoints.closed else from_rpc_error(error, target)

    def check_closed(self) -> None:
        """Raise ServerError (CLIENT_CLOSED) if that is why a call was cancelled, and not because its task was."""
        task = asyncio.current_task()
        if self.endpoints.closed and not (task is not None and task.cancelling()):
            raise client_closed() from None

    async def close(self) -> None:
        """Close the channels; running calls end with an error (CLIENT_CLOSED)."""
        self.endpoints.closed = True
        for endpoint in self.endpoints.all:
            await endpoint.connection.channel.close(None)


class AsyncTextStream:
    """Chunks of an answer as they come; afterwards `final` holds the whole. Retried only before the first chunk.

    Leaving the loop early is not enough to stop the server: call `cancel`, or use the stream in an `async with` block.
    """

    def __init__(
        self,
        caller: AsyncCaller,
        method: str,
        request: Any,
        timeout: float | None,
        request_id: str | None,
    ) -> None:
        self._caller = caller
        self._method = method
        self._request = request
        self._adapter = adapter_name(request)
        self._metadata = caller.settings.metadata(request_id, self._adapter)
        self._deadline = caller.settings.deadline(timeout)
        self._call: Any = None
        self._cancelled = asyncio.Event()
        self.final: Answer | None = None
        """The whole answer, once the stream has ended."""
        self._events = self._run()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        return await self._events.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the request on the server at once. Does nothing after the end."""
        self._cancelled.set()
        if self._call is not None:
            self._call.cancel()

    async def result(self) -> Answer:
        """Read to the end and return the whole answer."""
        async for _ in self:
            pass
        if self.final is None:
            raise ServerError("the stream was cancelled before its end", reason="CANCELLED")
        return self.final

    async def _run(self) -> AsyncIterator[Chunk]:
        attempts = self._caller.attempts(self._adapter, self._deadline)
        while not self._cancelled.is_set():
            begun = False
            start = self._caller.method(attempts.endpoint, self._method)
            self._call = start(self._request, timeout=remaining(self._deadline), metadata=self._metadata)
            try:
                async for message in self._call:
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
            except asyncio.CancelledError:
                # gRPC raises this as well when the call itself was cancelled by `cancel`.
                task = asyncio.current_task()
                if self._cancelled.is_set() and not (task is not None and task.cancelling()):
                    return
                self._caller.check_closed()
                self._call.cancel()
                raise
            if begun:
                raise raised
            seconds = attempts.failed(raised)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._cancelled.wait(), seconds)


class AsyncClient:
    """Asks a server's inference door. `timeout` is in seconds and covers a call with all its retries.

    `caller` is whom limits count and weighted aliases draw for, unless it is empty: then user@host.

    Raises as `Client` does. Cancelling a call's task ends the request on the server.
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
        self._caller = AsyncCaller(
            Settings(target, timeout, retry or RetryPolicy(), caller, access or Access()),
            inference.InferenceServiceStub,
        )

    async def classify(
        self,
        text: str,
        *,
        adapter: str = "",
        labels: Iterable[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> Classification:
        """The most probable label and every candidate's probability; `labels` restrict (the base needs them)."""
        request = convert.classify_request(adapter, text, labels)
        return convert.classification(await self._caller.unary("Classify", request, timeout, request_id))

    async def batch_classify(
        self,
        texts: Iterable[str],
        *,
        adapter: str = "",
        labels: Iterable[str] = (),
        timeout: float | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> list[Classification]:
        """One result per text, in order, all or none."""
        request = convert.batch_request(adapter, texts, labels)
        reply = await self._caller.unary("BatchClassify", request, timeout, request_id)
        return [convert.classification(result) for result in reply.results]

    async def answer_short(
        self,
        question: str,
        *,
        context: str = "",
        adapter: str = "",
        sampling: Sampling | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        request_id: str | None = None,
    ) -> Answer:
        """A short answer, whole."""
        request = convert.answer_request("short", adapter, question, context, sampling)
        return convert.short_answer(await self._caller.unary("AnswerShort", request, timeout, request_id))

    def answer_long(
        self,
        question: str,
        *,
        context: str = "",
        adapter: str = "",
        sampling: Sampling | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> AsyncTextStream:
        """A long answer, streamed."""
        request = convert.answer_request("long", adapter, question, context, sampling)
        return AsyncTextStream(self._caller, "AnswerLong", request, timeout, request_id)

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
    ) -> AsyncTextStream:
        """Free generation, streamed. Exactly one of `fields`, `prompt`, `message`."""
        request = convert.generate_request(adapter, fields, prompt, message, sampling)
        return AsyncTextStream(self._caller, "Generate", request, timeout, request_id)

    async def close(self) -> None:
        """Close the channels; running calls are cancelled."""
        await self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
