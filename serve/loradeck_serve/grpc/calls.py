"""The call of a running RPC: made from its metadata by the interceptor, found by the servicers."""

from contextvars import ContextVar
from typing import Any

from loradeck_serve.domain import Call

REQUEST_ID = "x-request-id"
CALLER = "x-loradeck-caller"
_LONGEST = 128

current_call: ContextVar[Call] = ContextVar("current_call")
"""The call that the present task serves."""


def call_of(method: str, context: Any) -> Call:
    """A call with the caller's request id and name if it sent usable ones. Printable ASCII, at most 128 characters."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if key in (REQUEST_ID, CALLER)}
    call = Call(method=method, peer=_host(context.peer()))
    request_id, caller = metadata.get(REQUEST_ID), metadata.get(CALLER)
    if _usable(request_id):
        call.request_id = str(request_id)
    if _usable(caller):
        call.caller = str(caller)
    return call


def _host(peer: str) -> str:
    """gRPC's name of the other end without its port, which is another one for each connection."""
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]


def _usable(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isascii() and value.isprintable()
