"""Errors rebuilt from google.rpc.Status: the same classes that the server raised."""

from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from loradeck_registry.errors import (
    ConflictError,
    ExhaustedError,
    InvalidError,
    Kind,
    LoradeckError,
    NotFoundError,
    PreconditionError,
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


class UnauthenticatedError(LoradeckError):
    """No or wrong credentials."""

    kind = Kind.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class DeniedError(LoradeckError):
    """Not allowed."""

    kind = Kind.DENIED
    reason = "DENIED"


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
    if status is None and code is grpc.StatusCode.UNAVAILABLE and target:
        message = f"no server answers at {target} ({message}): is `loradeck serve` running there?"
        reason = "NOT_REACHABLE"
    return kind(message, reason=reason, field=field, retry_after=retry_after, metadata=metadata)
