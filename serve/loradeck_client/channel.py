"""What both clients share: channels, metadata, deadlines."""

import getpass
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import grpc

from loradeck_client.access import Access
from loradeck_client.endpoints import parse_targets
from loradeck_client.retry import RetryPolicy
from loradeck_registry.errors import InvalidError
from loradeck_registry.reference import check_name

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    # The retry policy of this package is the only one: gRPC's own would multiply with it.
    ("grpc.enable_retries", 0),
    # A server that restarts is found again soon (gRPC's own waits grow to two minutes), and an address where nobody
    # answers at all holds a request up for this long at most (20 s).
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 3000),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
DEFAULT_TIMEOUT = 60.0
_LONGEST_TIMEOUT = 1e8
"""Three years. gRPC takes much longer ones for a deadline that has passed."""


@dataclass(frozen=True)
class Settings:
    """How calls are made."""

    target: str | Sequence[str]
    """One address, or several with commas or in a list."""
    timeout: float = DEFAULT_TIMEOUT
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    caller: str = ""
    """Who calls, where the server asks for no credentials; empty: user@host."""
    access: Access = field(default_factory=Access)

    def deadline(self, timeout: float | None) -> float:
        """When a call with this timeout (None: the client's) must be over, monotonic."""
        return time.monotonic() + min(self.timeout if timeout is None else timeout, _LONGEST_TIMEOUT)

    @property
    def targets(self) -> tuple[str, ...]:
        """The addresses. Raises InvalidError."""
        return parse_targets(self.target)

    def metadata(self, request_id: str | None, adapter: str = "") -> tuple[tuple[str, str], ...]:
        """Metadata of a call: who calls, the API key if there is one, the request id if one is given, and the adapter's
        name for balancers that cannot read the request."""
        metadata = [("x-loradeck-caller", self.caller or _caller())]
        if adapter:
            metadata.append(("x-loradeck-adapter", adapter))
        if request_id is not None:
            metadata.append(("x-request-id", request_id))
        metadata.extend(self.access.metadata)
        return tuple(metadata)


def adapter_name(request: Any) -> str:
    """The name of the adapter that a request is for, by which servers are chosen; empty for the base."""
    try:
        return check_name(str(getattr(request, "adapter", "")).partition("@")[0])
    except InvalidError:
        # The server says what is wrong with it.
        return ""


def open_sync(target: str, access: Access) -> grpc.Channel:
    """A channel to `target`. Raises InvalidError or NotFoundError if `access` cannot be used for it."""
    access.check(target)
    credentials, options = access.channel_credentials(), (*OPTIONS, *access.options)
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def open_async(target: str, access: Access) -> grpc.aio.Channel:
    """The same for asyncio."""
    access.check(target)
    credentials, options = access.channel_credentials(), (*OPTIONS, *access.options)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def remaining(deadline: float) -> float:
    """Seconds until `deadline`; never 0 or less, so that the call itself reports the deadline."""
    return max(deadline - time.monotonic(), 0.001)


@cache
def _caller() -> str:
    """Who runs this process, for the server's limits, logs and alias history: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    text = f"{user}@{socket.gethostname()}"[:128]
    return text if text.isascii() and text.isprintable() else "unknown"
