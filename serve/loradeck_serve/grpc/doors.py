"""The two gRPC servers, their health and their reflection."""

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from loradeck_registry.errors import PreconditionError
from loradeck_serve.config import Address
from loradeck_serve.grpc.interceptor import ErrorInterceptor

INFERENCE = "loradeck.inference.v1.InferenceService"
ADAPTERS = "loradeck.adapters.v1.AdapterService"
LIVENESS = "liveness"
"""Health entry that is SERVING while the process answers at all, starting and draining included."""


class Door:
    """One gRPC server on one address. Bound when it is made, so that a port in use is known at once."""

    def __init__(self, what: str, address: Address, interceptor: ErrorInterceptor, message_bytes: int) -> None:
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._names: list[str] = []
        self.server: Any = grpc.aio.server(
            interceptors=(interceptor,),
            options=(
                ("grpc.max_receive_message_length", message_bytes),
                ("grpc.max_send_message_length", -1),
                # Without this a second server on the same port would silently share it.
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.max_ping_strikes", 0),
            ),
        )
        try:
            port = self.server.add_insecure_port(str(address))
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
        await self.server.start()

    async def set_serving(self, serving: bool) -> None:
        """Set the health of every service of this door, and of the door as a whole."""
        state = health_pb2.HealthCheckResponse
        for name in ("", *self._names):
            await self._health.set(name, state.SERVING if serving else state.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give running ones `grace` seconds, then cancel them."""
        await self.server.stop(grace)
