"""Domain errors as google.rpc.Status: one code per kind, with ErrorInfo, BadRequest, PreconditionFailure, RetryInfo."""

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from loradeck_registry.errors import Kind, LoradeckError

DOMAIN = "loradeck"

_CODES = {
    Kind.NOT_FOUND: code_pb2.NOT_FOUND,
    Kind.INVALID: code_pb2.INVALID_ARGUMENT,
    Kind.PRECONDITION: code_pb2.FAILED_PRECONDITION,
    Kind.EXHAUSTED: code_pb2.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: code_pb2.UNAVAILABLE,
    Kind.CONFLICT: code_pb2.ABORTED,
    Kind.UNAUTHENTICATED: code_pb2.UNAUTHENTICATED,
    Kind.DENIED: code_pb2.PERMISSION_DENIED,
    Kind.DEADLINE: code_pb2.DEADLINE_EXCEEDED,
    Kind.UNIMPLEMENTED: code_pb2.UNIMPLEMENTED,
    Kind.INTERNAL: code_pb2.INTERNAL,
}
_LONGEST = 1500
"""Characters of a message: status travels in HTTP/2 trailers, which are bounded (8 KiB by default)."""


def to_status(error: LoradeckError, request_id: str) -> status_pb2.Status:
    """The status of a domain error. An error of kind INTERNAL shows its request id and nothing of its text."""
    message = error.message[:_LONGEST]
    metadata = {key[:64]: value[:256] for key, value in error.metadata.items()}
    if error.kind is Kind.INTERNAL:
        message, metadata = f"internal error; request {request_id}", {}
    metadata["request_id"] = request_id
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.kind is Kind.INVALID:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field or "", description=message, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.kind is Kind.PRECONDITION:
        failure = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, subject=error.field or "", description=message
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[failure]))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    return status_pb2.Status(code=_CODES[error.kind], message=message, details=packed)
