"""A client with several addresses: the server where an adapter is hot first, the next one where a server is away."""

import asyncio
import contextlib
import random
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

import loradeck.inference.v1 as inference
from loradeck_client import (
    AdminClient,
    AsyncClient,
    Client,
    ExhaustedError,
    InvalidError,
    RetryPolicy,
    UnavailableError,
)
from loradeck_client.endpoints import Endpoints, parse_targets
from tests.client.conftest import FINAL, UNAVAILABLE, Inference, Script, chunk, failure, info, retry

Fleet = dict[str, Script]
CLASSIFIED = inference.ClassifyResponse(label="a", probabilities=[inference.LabelProbability(label="a", probability=1)])
ONCE = RetryPolicy(attempts=1)
FULL = failure(code_pb2.RESOURCE_EXHAUSTED, info("QUEUE_FULL"), retry(5))


def ranked(fleet: Fleet, adapter: str) -> list[Script]:
    """The servers in the order in which requests for an adapter try them."""
    order = Endpoints(list(fleet), lambda target: target).order(adapter)
    return [fleet[endpoint.target] for endpoint in order]


def script_all(fleet: Fleet, *answers: Any) -> None:
    """The same answers from every server."""
    for script in fleet.values():
        script.answers = list(answers)


def counts(fleet: Fleet) -> list[int]:
    """Calls that each server got."""
    return [len(script.calls) for script in fleet.values()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time by which servers are left out. It stands still until a test moves it: a slow call is no pause."""
    now = [100.0]
    monkeypatch.setattr("loradeck_client.endpoints.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_requests_for_one_adapter_go_to_one_server_and_adapters_spread(fleet: Fleet) -> None:
    script_all(fleet, *[CLASSIFIED] * 90)
    with Client(list(fleet)) as client:
        for _ in range(3):
            for number in range(30):
                client.classify("x", adapter=f"clf-{number}@prod")
    seen: dict[str, Counter[str]] = {}
    for address, script in fleet.items():
        seen[address] = Counter(request.adapter for _, request, _ in script.calls)
    assert all(count == 3 for adapters in seen.values() for count in adapters.values())
    assert min(map(len, seen.values())) >= 4


def test_every_reference_of_an_adapter_means_the_same_server(fleet: Fleet) -> None:
    script_all(fleet, *[CLASSIFIED] * 4)
    with Client(list(fleet)) as client:
        for reference in ("clf", "clf@prod", "clf@7", "clf@sha256:" + "0" * 64):
            client.classify("x", adapter=reference)
    assert sorted(counts(fleet)) == [0, 0, 4]
    metadata = next(script for script in fleet.values() if script.calls).calls[0][2]
    assert metadata["x-loradeck-adapter"] == "clf"


def test_adapters_of_other_servers_stay_where_they_are_when_one_goes(fleet: Fleet) -> None:
    addresses = list(fleet)
    names = [f"clf-{number}" for number in range(200)]
    all_three = {n: Endpoints(addresses, lambda t: t).order(n)[0].target for n in names}
    without = {n: Endpoints(addresses[:2], lambda t: t).order(n)[0].target for n in names}
    assert all(without[n] == target for n, target in all_three.items() if target != addresses[2])
    share = Counter(all_three.values())
    assert min(share.values()) > 40, share


def test_base_requests_take_turns(fleet: Fleet) -> None:
    script_all(fleet, *[CLASSIFIED] * 3)
    with Client(list(fleet)) as client:
        for _ in range(9):
            client.classify("x", labels=["a", "b"])
    assert counts(fleet) == [3, 3, 3]


def test_next_server_answers_at_once_when_one_drains(fleet: Fleet) -> None:
    first, second, _ = ranked(fleet, "clf")
    first.answers, second.answers = [UNAVAILABLE], [CLASSIFIED]
    with Client(list(fleet), retry=ONCE) as client:
        assert client.classify("x", adapter="clf").label == "a"
    assert (len(first.calls), len(second.calls)) == (1, 1)


def test_next_server_answers_at_once_when_nobody_listens_at_the_first(fleet: Fleet) -> None:
    script_all(fleet, CLASSIFIED)
    addresses = ["127.0.0.1:1", *fleet]
    endpoints = Endpoints(addresses, lambda target: target)
    adapter = next(f"clf-{n}" for n in range(100) if endpoints.order(f"clf-{n}")[0].target == addresses[0])
    begin = time.monotonic()
    with Client(addresses, retry=ONCE) as client:
        assert client.classify("x", adapter=adapter).label == "a"
    assert time.monotonic() - begin < 20
    assert sum(counts(fleet)) == 1


def test_address_that_takes_connections_and_says_nothing_holds_a_request_up_for_seconds_only(fleet: Fleet) -> None:
    script_all(fleet, CLASSIFIED)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        addresses = [f"127.0.0.1:{mute.getsockname()[1]}", *fleet]
        endpoints = Endpoints(addresses, lambda target: target)
        adapter = next(f"clf-{n}" for n in range(100) if endpoints.order(f"clf-{n}")[0].target == addresses[0])
        begin = time.monotonic()
        with Client(addresses, retry=ONCE) as client:
            assert client.classify("x", adapter=adapter).label == "a"
        assert time.monotonic() - begin < 20
    assert sum(counts(fleet)) == 1


def test_server_that_was_away_is_left_out_and_comes_back(fleet: Fleet, clock: list[float]) -> None:
    first, second, _ = ranked(fleet, "clf")
    first.answers = [UNAVAILABLE, CLASSIFIED, CLASSIFIED]
    second.answers = [CLASSIFIED] * 3
    with Client(list(fleet)) as client:
        for _ in range(3):
            client.classify("x", adapter="clf")
        assert (len(first.calls), len(second.calls)) == (1, 3), "a server that was away was asked again at once"
        clock[0] += 0.6
        for _ in range(2):
            client.classify("x", adapter="clf")
    assert (len(first.calls), len(second.calls)) == (3, 3)


def test_full_server_hands_on_but_no_caller_goes_around_its_own_limit(fleet: Fleet) -> None:
    first, second, third = ranked(fleet, "clf")
    first.answers, second.answers = [FULL], [CLASSIFIED]
    with Client(list(fleet), retry=ONCE) as client:
        assert client.classify("x", adapter="clf").label == "a"
        # A full server is not one that is away.
        first.answers = [failure(code_pb2.RESOURCE_EXHAUSTED, info("RATE_PER_CALLER"), retry(5))]
        with pytest.raises(ExhaustedError) as raised:
            client.classify("x", adapter="clf")
    assert raised.value.reason == "RATE_PER_CALLER"
    assert (len(first.calls), len(second.calls), len(third.calls)) == (2, 1, 0)


def test_one_request_is_with_one_server_at_a_time_and_attempts_are_rounds(fleet: Fleet) -> None:
    script_all(fleet, *[UNAVAILABLE] * 9)
    policy = RetryPolicy(attempts=2, first_seconds=0.01)
    with Client(list(fleet), retry=policy) as client, pytest.raises(UnavailableError):
        client.classify("x", adapter="clf")
    assert counts(fleet) == [2, 2, 2]


def test_wrong_request_is_not_sent_to_all_servers(fleet: Fleet) -> None:
    script_all(fleet, failure(code_pb2.INVALID_ARGUMENT, info("EMPTY_FIELD")))
    with Client(list(fleet)) as client, pytest.raises(InvalidError):
        client.classify("", adapter="clf")
    assert sum(counts(fleet)) == 1


@pytest.mark.usefixtures("clock")
def test_stream_goes_on_to_the_next_server_only_before_its_first_chunk(fleet: Fleet) -> None:
    first, second, _ = ranked(fleet, "qa")
    first.answers = [[UNAVAILABLE]]
    second.answers = [[chunk("ab"), FINAL], [chunk("a"), UNAVAILABLE]]
    with Client(list(fleet)) as client:
        assert client.answer_long("q", adapter="qa").result().text == "ab"
        with pytest.raises(UnavailableError):
            client.answer_long("q", adapter="qa").result()
    assert (len(first.calls), len(second.calls)) == (1, 2)


async def test_asyncio_client_does_the_same(fleet: Fleet) -> None:
    first, second, _ = ranked(fleet, "clf")
    first.answers = [UNAVAILABLE]
    second.answers = [CLASSIFIED]
    async with AsyncClient(",".join(fleet), retry=ONCE) as client:
        assert (await client.classify("x", adapter="clf")).label == "a"
    first.answers, second.answers = [[UNAVAILABLE]], [[chunk("ab"), FINAL]]
    async with AsyncClient(list(fleet), retry=ONCE) as client:
        stream = client.answer_long("q", adapter="clf")
        assert (await stream.result()).text == "ab"
    assert (len(first.calls), len(second.calls)) == (2, 2)


def port_to_keep() -> int:
    """A free port below those that the kernel gives away: nobody gets it while the server on it is stopped."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


async def test_restart_of_a_server_is_noticed_within_seconds() -> None:
    script = Script()

    def serve(port: int) -> tuple[Any, int]:
        server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
        inference.add_InferenceServiceServicer_to_server(Inference(script), server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return server, bound

    server, port = serve(port_to_keep())
    script.answers = [CLASSIFIED] * 2
    async with AsyncClient(f"127.0.0.1:{port}", retry=ONCE) as client:
        assert (await client.classify("x")).label == "a"
        server.stop(0).wait()
        for _ in range(30):
            # gRPC's own waits would have grown to tens of seconds by now.
            with pytest.raises(UnavailableError):
                await client.classify("x")
            await asyncio.sleep(0.1)
        server, _ = serve(port)
        try:
            begin = time.monotonic()
            while True:
                try:
                    await client.classify("x")
                    break
                except UnavailableError:
                    assert time.monotonic() - begin < 30
                    await asyncio.sleep(0.05)
        finally:
            server.stop(0).wait()


@pytest.mark.parametrize("target", ["", "a:1,", ",", []])
def test_empty_address_is_refused(target: Any) -> None:
    with pytest.raises(InvalidError):
        Client(target)


def test_admin_client_is_for_one_server(fleet: Fleet) -> None:
    with pytest.raises(InvalidError, match="one server"):
        AdminClient(",".join(fleet))


def test_schemes_of_grpc_are_one_address() -> None:
    assert parse_targets("a:1, b:2,a:1") == ("a:1", "b:2")
    assert parse_targets("ipv4:127.0.0.1:1,127.0.0.1:2") == ("ipv4:127.0.0.1:1,127.0.0.1:2",)
