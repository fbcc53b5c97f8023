"""What a failed call says: code, reason, field, retry time."""

from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass(frozen=True)
class Failure:
    """A failed call."""

    code: str
    reason: str
    field: str
    retry_seconds: float | None
    metadata: dict[str, str]
    message: str


async def failure(call: Any) -> Failure:
    """Await a unary call or read a stream to its end; it must fail."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.RpcError as error:
        return describe(error)
    raise AssertionError("the call did not fail")


def describe(error: Any) -> Failure:
    """From a gRPC error."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    reason = field = ""
    retry = None
    metadata: dict[str, str] = {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        again, violation = error_details_pb2.RetryInfo(), error_details_pb2.PreconditionFailure()
        if detail.Unpack(info):
            assert info.domain == "loradeck"
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            field = bad.field_violations[0].field
        elif detail.Unpack(violation):
            assert violation.violations[0].type == reason
        elif detail.Unpack(again):
            retry = again.retry_delay.ToNanoseconds() / 1e9
    return Failure(error.code().name, reason, field, retry, metadata, error.details())
