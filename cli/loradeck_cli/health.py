"""`loradeck health`: ask a server's standard gRPC health service, for probes and for scripts that wait."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from loradeck_cli.connection import connection
from loradeck_cli.number import Number
from loradeck_cli.output import emit, line
from loradeck_registry.errors import UnavailableError

if TYPE_CHECKING:
    from loradeck_client import Access


@click.command()
@click.option(
    "--server",
    default="127.0.0.1:8500",
    envvar="LORADECK_SERVER",
    show_default=True,
    metavar="HOST:PORT",
    help="Either gRPC door.",
)
@click.option("--service", default="", metavar="NAME", help="A service's full name, or `liveness` [default: the door].")
@click.option(
    "--timeout", type=Number(0, min_open=True), default=5.0, show_default=True, help="Seconds for one question."
)
@click.option(
    "--wait", type=Number(0), default=0.0, help="Ask again for up to this many seconds until the answer is SERVING."
)
@click.option("--json", "json_path", metavar="PATH", help="Write JSON to PATH, or - for standard output.")
@connection
def command(server: str, service: str, timeout: float, wait: float, json_path: str | None) -> None:
    """Ask whether a server takes requests. Exit code 0: SERVING; 1: it does not, or does not answer."""
    from loradeck_client.endpoints import parse_targets

    parse_targets(server)
    until = time.monotonic() + wait
    while True:
        state = ask(server, service, timeout)
        if state == "SERVING" or time.monotonic() >= until:
            break
        time.sleep(min(0.5, max(until - time.monotonic(), 0)))
    emit({"server": server, "service": service, "state": state}, json_path, lambda: line(f"{state} {server}"))
    if state != "SERVING":
        reasons = {
            "NOT_SERVING": _why(server, timeout),
            "NO_ANSWER": "no loradeck server answers there (or it speaks TLS: --tls, --tls-ca)",
            "UNKNOWN_SERVICE": f"it has no service {service!r}",
        }
        raise UnavailableError(f"{server} does not take requests: {reasons.get(state, state)}", reason=state)


def _why(server: str, timeout: float) -> str:
    """Loading or broken: whether the server has ever taken requests."""
    started = ask(server, "startup", timeout)
    if started == "NOT_SERVING":
        return "it is starting: it has taken none yet"
    if started == "SERVING":
        return "it did before: it is draining, or its engine is being restarted (its log says which)"
    return "it is starting, draining, or its engine is being restarted"


def ask(server: str, service: str = "", timeout: float = 5.0, access: Access | None = None) -> str:
    """SERVING, NOT_SERVING, UNKNOWN_SERVICE, or NO_ANSWER where nobody answers in the protocol."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from loradeck_client import Access
    from loradeck_client.channel import open_sync

    # The health service asks for no key, so none is sent.
    access = replace(access or Access.from_environment(), api_key="")
    with open_sync(server, access) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        except grpc.RpcError as error:
            missing = error.code() is grpc.StatusCode.NOT_FOUND
            return "UNKNOWN_SERVICE" if missing else "NO_ANSWER"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))
