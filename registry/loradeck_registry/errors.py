"""The one tree of domain errors. Doors map `kind` to their own codes; users read `str(error)`."""

from collections.abc import Mapping
from enum import Enum


class Kind(Enum):
    """What went wrong, in terms that every door can map (gRPC status, exit code)."""

    NOT_FOUND = "not_found"
    INVALID = "invalid"
    PRECONDITION = "precondition"
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    CONFLICT = "conflict"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    DEADLINE = "deadline"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"


class LoradeckError(Exception):
    """An error with one line for the user.

    `message` says what is wrong and, where it can, what to do. `reason` is a stable UPPER_SNAKE code for programs.
    `field` names the request or file field at fault. `retry_after` is in seconds. `metadata` holds short strings that
    are safe to show to a caller.
    """

    kind = Kind.INTERNAL
    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str | None = None,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.field = field
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})


class NotFoundError(LoradeckError):
    """An adapter, revision, alias or file does not exist."""

    kind = Kind.NOT_FOUND
    reason = "NOT_FOUND"


class InvalidError(LoradeckError):
    """A name, reference, field or file is malformed. `field` names it."""

    kind = Kind.INVALID
    reason = "INVALID"


class PreconditionError(LoradeckError):
    """The thing exists but cannot be used here: another base, a rank over the limit, damaged content."""

    kind = Kind.PRECONDITION
    reason = "PRECONDITION"


class DamagedError(PreconditionError):
    """Content does not match its digest."""

    reason = "DAMAGED"


class ConflictError(LoradeckError):
    """Somebody else moved the alias first."""

    kind = Kind.CONFLICT
    reason = "CONFLICT"


class ExhaustedError(LoradeckError):
    """A queue, quota or limit is full. `retry_after` says when to come back."""

    kind = Kind.EXHAUSTED
    reason = "EXHAUSTED"


class UnavailableError(LoradeckError):
    """The server is draining, or its engine or store is not reachable at the moment."""

    kind = Kind.UNAVAILABLE
    reason = "UNAVAILABLE"


class UnauthenticatedError(LoradeckError):
    """No or wrong credentials."""

    kind = Kind.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class DeniedError(LoradeckError):
    """Who asks is known, and not allowed to."""

    kind = Kind.DENIED
    reason = "DENIED"


class UnimplementedError(LoradeckError):
    """Known, agreed, and not built yet: refused instead of ignored."""

    kind = Kind.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"
