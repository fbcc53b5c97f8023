"""The tracer: spans of finished calls, sent to an OpenTelemetry collector in the background. Off unless configured."""

import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from loradeck_registry.errors import PreconditionError
from loradeck_serve.config import Tracing
from loradeck_serve.domain import Call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_LAST_SECONDS = 3.0
_FAULTS = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS"})
"""Codes that count as errors of the server."""


class Tracer:
    """Turns calls into spans: one of the whole call, below it one for each of its stages.

    A span tells method, code, adapter, revision and counts; no text of a caller or of an answer ever.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("loradeck", _version())

    def ended(self, path: str, call: Call, code: str, reason: str) -> None:
        """A call to `path` has ended with this status."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        now = time.monotonic()
        # The clock of spans is the wall's; what was measured is on the monotonic one.
        offset = time.time_ns() - int(now * 1e9)

        def moment(monotonic: float) -> int:
            return offset + int(monotonic * 1e9)

        service, _, method = path.lstrip("/").rpartition("/")
        facts: dict[str, str | int | float | bool] = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "rpc.response.status_code": code,
            "loradeck.request_id": call.request_id,
        }
        if call.adapter is not None:
            facts["loradeck.adapter"] = call.adapter or "base"
        if reason:
            facts["loradeck.reason"] = reason
        if call.trail.left_out:
            facts["loradeck.stages_left_out"] = call.trail.left_out
        parent = TraceContextTextMapPropagator().extract(dict(call.trail.parent))
        whole = self._tracer.start_span(
            path.lstrip("/"), parent, SpanKind.SERVER, facts, start_time=moment(call.arrival)
        )
        if code in _FAULTS:
            whole.set_status(Status(StatusCode.ERROR, reason))
        if whole.is_recording():
            below = set_span_in_context(whole)
            for stage in call.trail.stages:
                named = {f"loradeck.{name}": value for name, value in stage.facts.items()}
                span = self._tracer.start_span(stage.name, below, attributes=named, start_time=moment(stage.begin))
                span.end(moment(stage.end))
        whole.end(moment(now))

    def close(self) -> None:
        """Send what is left. Blocks for some seconds at most, whatever the collector does."""
        closing = threading.Thread(target=self._provider.shutdown, name="last traces", daemon=True)
        closing.start()
        closing.join(_LAST_SECONDS)


def start_tracer(settings: Tracing) -> Tracer | None:
    """A tracer that sends to the collector of the settings by OTLP over gRPC; None if there is none.

    Raises PreconditionError (NO_OPENTELEMETRY) where its packages are not installed. A collector that cannot be reached
    is no error: spans are dropped, and the exporter says so in the log.
    """
    if settings.endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise PreconditionError(
            f"`tracing.endpoint` is set and {error.name} is not installed: pip install 'loradeck[tracing]'",
            reason="NO_OPENTELEMETRY",
            field="tracing",
        ) from None
    resource = Resource.create({"service.name": settings.service, "service.version": _version()})
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(settings.share)), resource=resource,
                              shutdown_on_exit=False)  # fmt: skip
    exporter = OTLPSpanExporter(settings.endpoint, insecure=settings.endpoint.startswith("http://"), timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider)


def _version() -> str:
    try:
        return version("loradeck")
    except PackageNotFoundError:
        return "unknown"
