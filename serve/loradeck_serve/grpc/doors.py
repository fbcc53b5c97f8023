"""The two gRPC servers, their health and their reflection."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from loradeck_registry.errors import LoradeckError, PreconditionError
from loradeck_serve.config import Address, Connections
from loradeck_serve.grpc.interceptor import DoorInterceptor
from loradeck_serve.grpc.odd_paths import survive_odd_paths
from loradeck_serve.grpc.tls import Certificates

INFERENCE = "loradeck.inference.v1.InferenceService"
ADAPTERS = "loradeck.adapters.v1.AdapterService"
LIVENESS = "liveness"
"""Health entry that is SERVING while the process answers at all, starting and draining included."""

STARTUP = "startup"
"""Health entry that is SERVING from the first time on that requests were taken: a door that is NOT_SERVING is loading
before that, and broken or on its way down after it."""

_MOST_PENDING = 16384
"""Calls that have arrived and not been taken up yet. By default gRPC ends some from 1,000 on, and all from 3,000 on,
as CANCELLED; here those above `limits.calls` are told so."""

_MOMENT_SECONDS = 0.05
_QUIET_SECONDS = 0.25
"""Longer than the wait before a first retry usually is."""

_SLICE_SECONDS = 0.01
_LATE_SECONDS = 0.05


class Door:
    """One gRPC server on one address. Bound when it is made, so that a port in use is known at once."""

    def __init__(
        self,
        what: str,
        address: Address,
        interceptor: DoorInterceptor,
        connections: Connections,
        message_bytes: int,
        grace_seconds: float,
        certificates: Certificates | None = None,
    ) -> None:
        """`grace_seconds`: what calls get to end on a connection that is closed for its age."""
        survive_odd_paths()
        self._interceptor = interceptor
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._names: list[str] = []
        self.server: Any = grpc.aio.server(
            interceptors=(interceptor,),
            options=_options(connections, message_bytes, grace_seconds),
        )
        try:
            if certificates is None:
                port = self.server.add_insecure_port(str(address))
            else:
                port = self.server.add_secure_port(str(address), certificates.server_credentials())
        except RuntimeError:
            port = 0
        if not port:
            raise PreconditionError(
                f"the {what} door cannot listen on {address}: the port is in use or the address is not this machine's; "
                f"choose another with --{what}-port, or 0 for any free one",
                reason="PORT_IN_USE",
                field=what,
            )
        self.address = Address(host=address.host, port=port)

    def serves(self, *names: str) -> None:
        """Say which services were added: they get a health entry each, and reflection."""
        self._names.extend(names)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        shown: Sequence[str] = (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(shown, self.server)

    async def start(self) -> None:
        """Take connections; health says NOT_SERVING until `set_serving`."""
        await self.set_serving(False)
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._health.set(STARTUP, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.server.start()

    async def set_serving(self, serving: bool) -> None:
        """Set the health of every service of this door, and of the door as a whole."""
        state = health_pb2.HealthCheckResponse
        for name in ("", *self._names):
            await self._health.set(name, state.SERVING if serving else state.NOT_SERVING)
        if serving:
            await self._health.set(STARTUP, state.SERVING)

    async def quiet(self, since: float, most: float) -> None:
        """Return when callers have turned away: none has come `since` (monotonic), or none for a while.

        The longer it lasts, the shorter a pause will do; after `most` seconds none is needed. Who stops a door sooner
        does not refuse the calls that have just arrived, but ends them as CANCELLED, which clients do not try again
        (grpc #41785). So a time in which the loop was held up, and could not take up who came, is no pause.
        """
        begin = before = time.monotonic()
        pause = 0.0
        while True:
            usual = _QUIET_SECONDS if self._interceptor.last_arrival > since else _MOMENT_SECONDS
            if pause >= usual * (1 - (before - begin) / most):
                return
            await asyncio.sleep(_SLICE_SECONDS)
            now = time.monotonic()
            seen = self._interceptor.last_arrival > before
            pause = 0.0 if seen or now - before > _LATE_SECONDS else pause + now - before
            before = now

    @property
    def running(self) -> int:
        """Calls of loradeck's own methods that were let in and have not ended."""
        return self._interceptor.running

    def cut_off(self, error: LoradeckError) -> None:
        """End every running call with `error`."""
        self._interceptor.cut_off(error)

    async def ended(self) -> None:
        """Return when the door has closed, by `stop` or by itself."""
        # Shielded: the future behind it is gRPC's own, and `stop` waits for it too. Who gives up waiting here must not
        # cancel it there.
        await asyncio.shield(self.server.wait_for_termination())

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give running ones `grace` seconds, then cancel them."""
        await self.server.stop(grace)


def _options(connections: Connections, message_bytes: int, grace_seconds: float) -> tuple[tuple[str, int], ...]:
    def milliseconds(seconds: float) -> int:
        return max(1, round(seconds * 1000))

    return (
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", -1),
        # Without this a second server on the same port would silently share it.
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", connections.connections),
        ("grpc.max_concurrent_streams", connections.streams),
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
        ("grpc.max_metadata_size", connections.metadata_bytes),
        ("grpc.absolute_max_metadata_size", connections.metadata_bytes),
        ("grpc.server_handshake_timeout_ms", milliseconds(connections.handshake_seconds)),
        ("grpc.http2.min_ping_interval_without_data_ms", milliseconds(connections.ping_seconds)),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", milliseconds(connections.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", milliseconds(connections.keepalive_timeout_seconds)),
        ("grpc.max_connection_idle_ms", milliseconds(connections.idle_seconds)),
        ("grpc.max_connection_age_ms", milliseconds(connections.age_seconds)),
        ("grpc.max_connection_age_grace_ms", milliseconds(grace_seconds)),
    )
