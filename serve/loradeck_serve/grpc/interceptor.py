"""The one place where errors become gRPC statuses, deadlines are bounded, and calls are counted and logged."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_status import rpc_status

from loradeck_registry.errors import Kind, LoradeckError
from loradeck_serve.config import Limits
from loradeck_serve.domain import Call
from loradeck_serve.grpc.calls import REQUEST_ID, call_of, current_call
from loradeck_serve.grpc.status import Curtain, to_status
from loradeck_serve.observation.metrics import BASE, Metrics

_log = logging.getLogger(__name__)

OURS = "/loradeck."
ENDLESS = frozenset({"WatchAdapters"})
"""Methods without a deadline of ours: they end when the caller or the server does."""


class DeadlineError(LoradeckError):
    """The deadline, the caller's or the server's own, has passed."""

    kind = Kind.DEADLINE
    reason = "DEADLINE_EXCEEDED"


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps every method of loradeck's services, unary and streaming alike; others pass untouched.

    Servicers are coroutines in both cases (a stream is written by `context.write`), so one wrapper serves both.
    """

    def __init__(self, limits: Limits, metrics: Metrics, curtain: Curtain) -> None:
        self._limits = limits
        self._curtain = curtain
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(OURS):
            return handler
        method = details.method.rpartition("/")[2]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._wrapped(method, handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._wrapped(method, handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )

    def _wrapped(self, method: str, behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Any]:
        async def run(request: Any, context: Any) -> Any:
            call = call_of(method, context)
            token = current_call.set(call)
            try:
                # Behind the reply, not before it: a message of its own for it would cost as much as the first token's.
                context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
                async with asyncio.timeout(self._seconds(method, context)):
                    reply = await behaviour(request, context)
            except asyncio.CancelledError:
                self._record(call, "CANCELLED", "CANCELLED")
                raise
            except Exception as raised:
                error = self._domain_error(raised, call)
            else:
                self._record(call, "OK", "")
                return reply
            finally:
                current_call.reset(token)
            status = rpc_status.to_status(to_status(error, call.request_id, self._curtain))
            self._record(call, status.code.name, error.reason)
            trailing = (*status.trailing_metadata, (REQUEST_ID, call.request_id))
            await context.abort(status.code, status.details, trailing)

        return run

    @staticmethod
    def _domain_error(raised: Exception, call: Call) -> LoradeckError:
        if isinstance(raised, TimeoutError):
            return DeadlineError("the deadline has passed")
        if isinstance(raised, LoradeckError) and raised.kind is not Kind.INTERNAL:
            return raised
        _log.error("internal error", exc_info=raised, extra={"request_id": call.request_id, "method": call.method})
        return raised if isinstance(raised, LoradeckError) else LoradeckError("internal error")

    def _seconds(self, method: str, context: Any) -> float | None:
        if method in ENDLESS:
            return None
        remaining = context.time_remaining()
        if remaining is None:
            return self._limits.default_deadline_seconds
        return min(float(remaining), self._limits.max_deadline_seconds)

    def _record(self, call: Call, code: str, reason: str) -> None:
        adapter = self._metrics.label(call.adapter)
        seconds = time.monotonic() - call.arrival
        self._metrics.requests.labels(adapter, call.method, code).inc()
        self._metrics.duration.labels(adapter, call.method).observe(seconds)
        if code != "OK":
            self._metrics.errors.labels(adapter, reason).inc()
        level = logging.WARNING if code in ("INTERNAL", "UNKNOWN") else logging.DEBUG if code == "OK" else logging.INFO
        if not _log.isEnabledFor(level):
            return
        _log.log(level, "call", extra={
            "request_id": call.request_id, "method": call.method, "code": code,
            "adapter": call.adapter or call.requested or BASE, "reason": reason, "seconds": round(seconds, 4),
        })  # fmt: skip
