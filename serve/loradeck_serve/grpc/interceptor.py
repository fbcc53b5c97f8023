"""The one place through which every call comes: who calls and what he may, deadline, message, error to status."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health
from grpc_status import rpc_status

from loradeck_registry.errors import ExhaustedError, InvalidError, Kind, LoradeckError
from loradeck_serve.access.guard import Guard
from loradeck_serve.access.quotas import Quotas
from loradeck_serve.config import Limits
from loradeck_serve.domain import Call
from loradeck_serve.grpc.calls import REQUEST_ID, Metadata, call_of, current_call
from loradeck_serve.grpc.operations import abort, follow, forget_frames, message, messages
from loradeck_serve.grpc.status import Curtain, to_status
from loradeck_serve.grpc.streams import BoundedWriter, NothingSentError
from loradeck_serve.grpc.tls import certificate_names
from loradeck_serve.grpc.unread import Kept, Unread
from loradeck_serve.live import Live
from loradeck_serve.observation.calls import CallRecorder

OURS = "/loradeck."
OPEN = f"/{health.SERVICE_NAME}/"
"""Asked by probes, which have no credentials."""
ENDLESS = frozenset({"WatchAdapters", "Watch"})
"""Methods without a deadline of ours: they end when the caller or the server does."""
_MOST_PROBES = 256
"""Calls of the health service at once, watching ones included."""
_PROBE_SECONDS = 5.0
_LATER_SECONDS = 0.05
"""gRPC ends a call at its caller's deadline. A status of ours at that moment would reach nobody, and stay here."""


class DeadlineError(LoradeckError):
    """The deadline, the caller's or the server's own, has passed."""

    kind = Kind.DEADLINE
    reason = "DEADLINE_EXCEEDED"


class DoorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps every method of one door.

    gRPC reads the request of a unary method before it calls anybody, without a deadline, and answers a message that it
    cannot parse in its own words. So all methods are given to it as ones that stream their requests: who may not call
    is told so before anything is read, and reading, parsing and answering are bounded and worded here.
    """

    def __init__(
        self,
        limits: Live[Limits],
        guard: Guard,
        quotas: Quotas,
        recorder: CallRecorder,
        curtain: Curtain,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        """`opened` raises UnavailableError while no call may begin, whatever it asks for; a running one goes on."""
        self._limits = limits
        self._guard = guard
        self._quotas = quotas
        self._recorder = recorder
        self._curtain = curtain
        self._opened = opened
        self.last_arrival = 0.0
        """When the last call came, monotonic. Probes do not count."""
        self._calls = 0
        """Calls of this door that have not ended."""
        self.running = 0
        """Calls of loradeck's own methods that were let in and have not ended."""
        self._cuts: set[Callable[[LoradeckError], None]] = set()
        self._unread = Unread()
        self._probes = 0
        """Those of them that anybody may make, apart: they must not take the others' places."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        if handler is None:
            return None
        path, metadata = str(details.method), dict(details.invocation_metadata or ())
        if not path.startswith(OPEN):
            self.last_arrival = time.monotonic()
        if handler.request_streaming:
            # Of these there is only reflection, whose handler is a generator over the requests.
            return grpc.stream_stream_rpc_method_handler(
                self._run(path, metadata, self._forwarding(handler)), handler.request_deserializer, None
            )
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._run(path, metadata, self._streaming(handler)))
        return grpc.stream_unary_rpc_method_handler(self._run(path, metadata, self._unary(handler)))

    def cut_off(self, error: LoradeckError) -> None:
        """End every running call with `error`."""
        for cut in list(self._cuts):
            cut(error)

    @staticmethod
    def _unary(handler: Any) -> Callable[..., Awaitable[Any]]:
        async def answer(context: Any, cut: Any) -> bytes:
            request = await message(handler, context)
            return bytes(handler.response_serializer(await handler.unary_unary(request, context)))

        return answer

    def _streaming(self, handler: Any) -> Callable[..., Awaitable[Any]]:
        async def answer(context: Any, cut: Callable[[LoradeckError], None]) -> None:
            request = await message(handler, context)
            writer = BoundedWriter(context, handler.response_serializer, self._limits.now.write_stall_seconds, cut)
            try:
                await handler.unary_stream(request, writer)
            finally:
                await writer.close()

        return answer

    def _forwarding(self, handler: Any) -> Callable[..., Awaitable[Any]]:
        async def answer(context: Any, cut: Callable[[LoradeckError], None]) -> None:
            writer = BoundedWriter(context, handler.response_serializer, self._limits.now.write_stall_seconds, cut)
            try:
                async for reply in handler.stream_stream(messages(context), context):
                    await writer.write(reply)
            finally:
                await writer.close()

        return answer

    def _run(
        self, path: str, metadata: Metadata, answer: Callable[..., Awaitable[Any]]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def run(requests: Any, context: Any) -> Any:
            call = call_of(path.rpartition("/")[2], metadata, context)
            token = current_call.set(call)
            task = asyncio.current_task()
            assert task is not None
            ended: LoradeckError | None = None

            def cut(error: LoradeckError) -> None:
                nonlocal ended
                if ended is None:
                    ended = error
                    task.cancel()

            self._count(path, 1)
            self._cuts.add(cut)
            error: LoradeckError
            unsent: NothingSentError | None = None
            limit = asyncio.timeout(None)
            kept = Kept(call.request_id)
            try:
                # Behind the reply, not before it: a message of its own for it would cost as much as the first token's.
                context.set_trailing_metadata(((REQUEST_ID, kept),))
                if (seconds := self._seconds(path, call.method, context)) is not None:
                    call.deadline = call.arrival + seconds
                    limit = asyncio.timeout(seconds + _LATER_SECONDS)
                # The timeout outside: an exit stack in which one error turns into another keeps both in a cycle.
                async with limit, AsyncExitStack() as stack:
                    await self._let_in(path, call, metadata, context, cut, stack)
                    reply = await answer(context, cut)
            except (asyncio.CancelledError, grpc.aio.InternalError, NothingSentError) as gone:
                forget_frames(gone)
                cause = ended or (DeadlineError("the deadline has passed") if limit.expired() else None)
                if cause is None or isinstance(gone, grpc.aio.InternalError):
                    # The caller has gone, or its deadline has come: gRPC has ended the call.
                    code = "DEADLINE_EXCEEDED" if context.time_remaining() == 0 else "CANCELLED"
                    self._recorder.ended(path, call, code, code)
                    raise asyncio.CancelledError from None
                task.uncancel()
                error = cause
                unsent = gone if isinstance(gone, NothingSentError) else None
            except Exception as raised:
                error = self._domain_error(raised, call)
                forget_frames(raised)
            else:
                self._recorder.ended(path, call, "OK", "")
                return reply
            finally:
                self._count(path, -1)
                self._cuts.discard(cut)
                self._unread.ended(_proven(call), kept)
                current_call.reset(token)
            status = rpc_status.to_status(to_status(error, call.request_id, self._curtain))
            self._recorder.ended(path, call, status.code.name, error.reason)
            trailing = (*status.trailing_metadata, (REQUEST_ID, kept))
            # gRPC's call keeps the error that ends it, and that error's traceback this frame.
            aborting = abort(context, status, trailing)
            del error, context, requests, kept, trailing
            if unsent is not None:
                follow(unsent.first, aborting)
                raise asyncio.CancelledError
            await aborting

        return run

    def _left(self) -> None:
        self.running -= 1

    def _count(self, path: str, more: int) -> None:
        if path.startswith(OPEN):
            self._probes += more
        else:
            self._calls += more

    async def _let_in(
        self,
        path: str,
        call: Call,
        metadata: Metadata,
        context: Any,
        cut: Callable[[LoradeckError], None],
        stack: AsyncExitStack,
    ) -> None:
        """Raise unless this call may go on now. What it takes of its caller's quotas ends with `stack`."""
        probe = path.startswith(OPEN)
        most = min(_MOST_PROBES, self._limits.now.calls) if probe else self._limits.now.calls
        if (self._probes if probe else self._calls) > most:
            raise ExhaustedError(
                f"this door has {most} calls, as many as it takes: retry shortly",
                reason="TOO_MANY_CALLS",
                retry_after=1,
            )
        if probe:
            return
        claimed = call.caller
        if self._guard.asks:
            # What is only claimed is in no log either.
            call.caller = ""
        identity = call.access = self._guard.identify(claimed, metadata, lambda: certificate_names(context))
        call.caller = identity.name
        self._unread.check(_proven(call), self._limits.now.write_stall_seconds)
        ours = path.startswith(OURS)
        if self._guard.asks:
            identity.check_known()
            if ours:
                identity.check_method(call.method)
        if ours:
            self._opened()
            self.running += 1
            stack.callback(self._left)
        if self._guard.asks:
            stack.enter_context(self._guard.watching(identity, cut))
            await stack.enter_async_context(self._quotas.call(identity))

    def _domain_error(self, raised: Exception, call: Call) -> LoradeckError:
        if isinstance(raised, TimeoutError):
            return DeadlineError("the deadline has passed")
        if isinstance(raised, DecodeError):
            return InvalidError(
                "the message is not of the type that this method takes: use the protos of this server's version",
                reason="BAD_MESSAGE",
            )
        if isinstance(raised, LoradeckError) and raised.kind is not Kind.INTERNAL:
            return raised
        self._recorder.broken(call, raised)
        return raised if isinstance(raised, LoradeckError) else LoradeckError("internal error")

    def _seconds(self, path: str, method: str, context: Any) -> float | None:
        if method in ENDLESS:
            return None
        if path.startswith(OPEN):
            return _PROBE_SECONDS
        remaining = context.time_remaining()
        limits = self._limits.now
        return limits.default_deadline_seconds if remaining is None else min(remaining, limits.max_deadline_seconds)


def _proven(call: Call) -> str:
    """Who calls, as proven; else the host, since a name that is only claimed can be another one each time."""
    return call.access.name if call.access.proof != "none" else call.peer
