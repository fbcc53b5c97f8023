"""`loradeck health` against a real health service: what it says, and its exit code."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from loradeck_cli.health import ask, command
from loradeck_registry.errors import UnavailableError

STATES = health_pb2.HealthCheckResponse


class Door:
    """A gRPC port that only tells its health."""

    def __init__(self) -> None:
        self.health = health.HealthServicer()
        self.server = grpc.server(ThreadPoolExecutor(2))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.server.stop(None)


def test_serving_door_is_exit_code_0(door: Door) -> None:
    result = CliRunner().invoke(command, ["--server", door.address, "--json", "-"])
    assert result.exit_code == 0
    assert json.loads(result.output) == {"server": door.address, "service": "", "state": "SERVING"}


def test_door_that_does_not_serve_is_an_error_that_says_why(door: Door) -> None:
    door.health.set("", STATES.NOT_SERVING)
    result = CliRunner().invoke(command, ["--server", door.address])
    assert isinstance(result.exception, UnavailableError)
    assert result.exception.reason == "NOT_SERVING"
    assert "starting" in result.exception.message


@pytest.mark.parametrize(("startup", "why"), [("NOT_SERVING", "taken none yet"), ("SERVING", "did before")])
def test_loading_is_told_from_broken(door: Door, startup: str, why: str) -> None:
    door.health.set("", STATES.NOT_SERVING)
    door.health.set("startup", STATES.ServingStatus.Value(startup))
    result = CliRunner().invoke(command, ["--server", door.address])
    assert isinstance(result.exception, UnavailableError)
    assert why in result.exception.message


def test_one_service_can_serve_while_the_door_does_not(door: Door) -> None:
    door.health.set("", STATES.NOT_SERVING)
    door.health.set("liveness", STATES.SERVING)
    assert ask(door.address, "liveness") == "SERVING"
    assert ask(door.address, "nothing") == "UNKNOWN_SERVICE"


def test_nobody_there_is_no_answer(door: Door) -> None:
    door.server.stop(None).wait(5)
    assert ask(door.address, timeout=2) == "NO_ANSWER"


def test_wait_ends_when_the_door_begins_to_serve(door: Door) -> None:
    door.health.set("", STATES.NOT_SERVING)
    later = threading.Timer(0.7, door.health.set, ("", STATES.SERVING))
    later.start()
    result = CliRunner().invoke(command, ["--server", door.address, "--wait", "20"])
    later.join()
    assert result.exit_code == 0
    assert result.output.startswith("SERVING")
