"""The call of a running RPC: made from its metadata by the interceptor, found by the servicers."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from loradeck_serve.domain import Call

REQUEST_ID = "x-request-id"
CALLER = "x-loradeck-caller"
PARENT = ("traceparent", "tracestate")
"""W3C Trace Context."""
_LONGEST = 128

Metadata = Mapping[str, str | bytes]

current_call: ContextVar[Call] = ContextVar("current_call")
"""The call that the present task serves."""


def call_of(method: str, metadata: Metadata, context: Any) -> Call:
    """A call with the caller's request id and name if it sent usable ones. Printable ASCII, at most 128 characters."""
    call = Call(method=method, peer=_host(context.peer()))
    request_id, caller = metadata.get(REQUEST_ID), metadata.get(CALLER)
    if _usable(request_id):
        call.request_id = str(request_id)
    if _usable(caller):
        call.caller = str(caller)
    call.trail.parent = {key: str(value) for key in PARENT if isinstance(value := metadata.get(key), str)}
    return call


def _host(peer: str) -> str:
    """gRPC's name of the other end without its port, which is another one for each connection."""
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]


def _usable(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isascii() and value.isprintable()
