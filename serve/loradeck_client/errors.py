"""Errors rebuilt from google.rpc.Status: the same classes that the server raised."""

from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from loradeck_registry.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    InvalidError,
    Kind,
    LoradeckError,
    NotFoundError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)

__all__ = [
    "ConflictError",
    "DeadlineError",
    "DeniedError",
    "ExhaustedError",
    "InvalidError",
    "LoradeckError",
    "NotFoundError",
    "PreconditionError",
    "ServerError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "from_rpc_error",
]


class DeadlineError(LoradeckError):
    """The deadline has passed."""

    kind = Kind.DEADLINE
    reason = "DEADLINE_EXCEEDED"


class ServerError(LoradeckError):
    """A bug in the server, or an answer that is not of loradeck. `metadata` holds the request id if there is one."""

    reason = "INTERNAL"


_CLASSES: dict[grpc.StatusCode, type[LoradeckError]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: DeniedError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
}


def from_rpc_error(error: Any, target: str = "") -> LoradeckError:
    """The domain error of a failed call. `reason`, `field`, `retry_after` and `metadata` come from the details."""
    code = error.code()
    kind = _CLASSES.get(code, ServerError)
    message = error.details() or code.name
    reason: str | None = None
    field: str | None = None
    retry_after: float | None = None
    metadata: dict[str, str] = {}
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        failure = error_details_pb2.PreconditionFailure()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field or None
        elif detail.Unpack(failure) and failure.violations:
            field = failure.violations[0].subject or field
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    if status is None:
        if code is grpc.StatusCode.CANCELLED or message == "Cancelling all calls":
            return _cut_off(message, target)
        message, reason = _of_grpc_itself(code, message, target)
    return kind(message, reason=reason, field=field, retry_after=retry_after, metadata=metadata)


def client_closed() -> ServerError:
    """The error of a call whose client is closed."""
    return ServerError("the client was closed: its calls end with it", reason="CLIENT_CLOSED")


def _cut_off(message: str, target: str) -> LoradeckError:
    """The error of a call that ended without a status, and not because its caller cancelled it: that is no error.

    In this way a server that stops ends calls which have arrived and not begun (grpc #41785), and running ones at last.
    """
    where = f"the server at {target}" if target else "the server"
    return UnavailableError(
        f"{where} cut the call off ({message}), and may have carried it out or not: is it stopping?", reason="CUT_OFF"
    )


def _of_grpc_itself(code: Any, message: str, target: str) -> tuple[str, str | None]:
    """Message and reason of a failure that no handler of loradeck made: gRPC's own words say nothing to a user."""
    if code is grpc.StatusCode.UNAVAILABLE and target:
        if any(word in message.lower() for word in ("handshak", "ssl", "tls", "certificate", "verif", "peer name")):
            hint = "its certificate, the authority (--tls-ca), the name (--tls-name), and whether it speaks TLS at all"
            return f"no TLS with {target} ({message}): check {hint}", "TLS_FAILED"
        hint = "is `loradeck serve` running there, and does it want TLS (--tls), or a certificate (--tls-cert)?"
        return f"no server answers at {target} ({message}): {hint}", "NOT_REACHABLE"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        where = f"the server at {target}" if target else "this server"
        return f"{where} does not take this call: is that its other door (inference or admin)?", "WRONG_DOOR"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer within the deadline: give the call more time (--timeout)", None
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return "the request is larger than the server takes: send less text", "TOO_LARGE"
    return message, None
