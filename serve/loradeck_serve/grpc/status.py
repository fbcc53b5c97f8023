"""Domain errors as google.rpc.Status: one code per kind, with ErrorInfo, BadRequest, PreconditionFailure, RetryInfo."""

from collections.abc import Mapping

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


class Curtain:
    """Names for this machine's places, which are nobody's business beyond it."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """`places` maps what must not be seen to what is said instead."""
        # The longest first: one place may lie in another.
        self._places = sorted(places.items(), key=lambda pair: -len(pair[0]))

    def hide(self, text: str) -> str:
        """`text` with the names in place of the places."""
        for place, name in self._places:
            text = text.replace(f"{name} {place}", name).replace(place, name)
        return text


def to_status(error: LoradeckError, request_id: str, curtain: Curtain) -> status_pb2.Status:
    """The status of a domain error. An error of kind INTERNAL shows its request id and nothing of its text."""
    message = curtain.hide(error.message)[:_LONGEST]
    metadata = {key[:64]: curtain.hide(value)[:256] for key, value in error.metadata.items()}
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
