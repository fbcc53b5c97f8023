"""What both clients share: channels, metadata, deadlines."""

import getpass
import socket
import time
from dataclasses import dataclass, field
from functools import cache

import grpc

from loradeck_client.access import Access
from loradeck_client.retry import RetryPolicy

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    # The retry policy of this package is the only one: gRPC's own would multiply with it.
    ("grpc.enable_retries", 0),
)
DEFAULT_TIMEOUT = 60.0


@dataclass(frozen=True)
class Settings:
    """How calls are made."""

    target: str
    timeout: float = DEFAULT_TIMEOUT
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    caller: str = ""
    """Who calls, where the server asks for no credentials; empty: user@host."""
    access: Access = field(default_factory=Access)

    def deadline(self, timeout: float | None) -> float:
        """When a call with this timeout (None: the client's) must be over, monotonic."""
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def metadata(self, request_id: str | None) -> tuple[tuple[str, str], ...]:
        """Metadata of a call: who calls, the API key if there is one, and the request id if one is given."""
        metadata = [("x-loradeck-caller", self.caller or _caller())]
        if request_id is not None:
            metadata.append(("x-request-id", request_id))
        metadata.extend(self.access.metadata)
        return tuple(metadata)


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
