"""How calls ended: counted, logged, and written to the audit log where an operator made them."""

import logging
import time

from loradeck_serve.access.audit import AuditLog
from loradeck_serve.access.grants import groups
from loradeck_serve.admission.rates import Bucket
from loradeck_serve.domain import Call
from loradeck_serve.observation.metrics import Metrics
from loradeck_serve.tracing.tracer import Tracer

_log = logging.getLogger(__name__)

_OURS = "/loradeck."
_ADMIN = "/loradeck.adapters."
_REFUSED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_LINES_PER_SECOND = 100
_REFUSALS_PER_SECOND, _REFUSALS_AT_ONCE = 10, 100
"""Lines of the audit log about refused calls: whoever reaches the admin door could fill the disk with them."""
_LONGEST = 128


class CallRecorder:
    """Of one door. A flood of failing calls writes a bounded number of lines; the metrics count them all."""

    def __init__(self, metrics: Metrics, audit: AuditLog, tracer: Tracer | None = None) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._audit = audit
        self._changing = groups()["admin"] - groups()["read"]
        self._lines = Bucket(_LINES_PER_SECOND, 2 * _LINES_PER_SECOND)
        self._left_out = 0
        self._refusals = Bucket(_REFUSALS_PER_SECOND, _REFUSALS_AT_ONCE)
        self._refusals_left_out = 0

    def ended(self, path: str, call: Call, code: str, reason: str) -> None:
        """A call to `path` ended with this status code."""
        if not path.startswith(_OURS):
            return
        if self._tracer is not None and call.method != "WatchAdapters":
            self._tracer.ended(path, call, code, reason)
        adapter = self._metrics.label(call.adapter)
        seconds = time.monotonic() - call.arrival
        self._metrics.requests.labels(adapter, call.method, code).inc()
        self._metrics.duration.labels(adapter, call.method).observe(seconds)
        if code != "OK":
            self._metrics.errors.labels(adapter, reason).inc()
        if path.startswith(_ADMIN) and (call.method in self._changing or code in _REFUSED):
            self._note(call, code, reason, seconds)
        level = logging.WARNING if code in ("INTERNAL", "UNKNOWN") else logging.DEBUG if code == "OK" else logging.INFO
        if not _log.isEnabledFor(level) or not self._may_write(level):
            return
        facts: dict[str, object] = {
            "request_id": call.request_id, "method": call.method, "code": code, "caller": call.caller,
            "adapter": call.adapter or call.requested[:_LONGEST] or adapter, "reason": reason,
            "seconds": round(seconds, 4),
        }  # fmt: skip
        if self._left_out:
            facts["lines_left_out"], self._left_out = self._left_out, 0
        _log.log(level, "call", extra=facts)

    def broken(self, call: Call, raised: Exception) -> None:
        """A bug showed."""
        _log.error("internal error", exc_info=raised, extra={"request_id": call.request_id, "method": call.method})

    def _may_write(self, level: int) -> bool:
        if level != logging.INFO:
            return True
        now = time.monotonic()
        if self._lines.wait(now):
            self._left_out += 1
            return False
        self._lines.take(now)
        return True

    def _note(self, call: Call, code: str, reason: str, seconds: float) -> None:
        if code in _REFUSED:
            now = time.monotonic()
            if self._refusals.wait(now):
                self._refusals_left_out += 1
                return
            self._refusals.take(now)
            if self._refusals_left_out:
                call.facts["refusals_left_out"], self._refusals_left_out = self._refusals_left_out, 0
        self._audit.record(
            call.method, who=call.caller, proof=call.access.proof, key=call.access.key_id, peer=call.peer,
            request_id=call.request_id, adapter=call.requested[:_LONGEST], **call.facts, result=code, reason=reason,
            seconds=round(seconds, 4),
        )  # fmt: skip
