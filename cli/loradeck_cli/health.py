"""`loradeck health`: ask a server's standard gRPC health service, for probes and for scripts that wait."""

import time

import click

from loradeck_cli.registry_output import emit, line
from loradeck_registry.errors import UnavailableError


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
@click.option("--timeout", default=5.0, show_default=True, help="Seconds for one question.")
@click.option("--wait", default=0.0, help="Ask again for up to this many seconds until the answer is SERVING.")
@click.option("--json", "json_path", metavar="PATH", help="Write JSON to PATH, or - for standard output.")
def command(server: str, service: str, timeout: float, wait: float, json_path: str | None) -> None:
    """Ask whether a server takes requests. Exit code 0: SERVING; 1: it does not, or does not answer."""
    until = time.monotonic() + wait
    while True:
        state = ask(server, service, timeout)
        if state == "SERVING" or time.monotonic() >= until:
            break
        time.sleep(min(0.5, max(until - time.monotonic(), 0)))
    emit({"server": server, "service": service, "state": state}, json_path, lambda: line(f"{state} {server}"))
    if state != "SERVING":
        reasons = {
            "NOT_SERVING": "it is starting, draining, or its engine is being restarted",
            "NO_ANSWER": "no loradeck server answers there",
            "UNKNOWN_SERVICE": f"it has no service {service!r}",
        }
        raise UnavailableError(f"{server} does not take requests: {reasons.get(state, state)}", reason=state)


def ask(server: str, service: str = "", timeout: float = 5.0) -> str:
    """SERVING, NOT_SERVING, UNKNOWN_SERVICE, or NO_ANSWER where nobody answers in the protocol."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(server, options=(("grpc.enable_http_proxy", 0),)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        except grpc.RpcError as error:
            missing = error.code() is grpc.StatusCode.NOT_FOUND
            return "UNKNOWN_SERVICE" if missing else "NO_ANSWER"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))
