"""A small number of mutated requests and registry objects; `loradeck bench fuzz` sends many."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from loradeck_bench.fuzz.attempts import Attempts, Names
from loradeck_bench.fuzz.objects import fuzz_registry
from loradeck_bench.fuzz.sending import Account, fuzz_server
from loradeck_bench.fuzz.telling import inner_text
from loradeck_registry.registry import Registry
from tests.serve.deck import Deck

NAMES = Names(("clf", "clf-text"), ("short",), ("long",), ("free",))


@dataclass(frozen=True)
class Fuzzed:
    """A server in a process of its own."""

    pid: int
    address: str
    admin: str


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Fuzzed]:
    """The server, which must end well when it is asked to."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.serve.fuzz.server", str(tmp_path / "deck")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as child:
        assert child.stdout is not None
        try:
            words = child.stdout.readline().split()
            assert words[:1] == ["ready"], "the server did not start"
            yield Fuzzed(int(words[1]), words[2], words[3])
            child.terminate()
            assert child.wait(30) == 0, "the server did not end well"
        finally:
            child.kill()


async def test_mutated_requests_break_hang_and_tell_nothing(server: Fuzzed) -> None:
    account = await fuzz_server(server.address, server.admin, NAMES, requests=1500, seed=3, at_once=16, pid=server.pid)
    result = account.result()
    counts = [result[name] for name in ("requests", "crashes", "hangs", "wrong_tokens", "leaked")]
    assert counts == [1500, 0, 0, 0, 0], result
    assert account.answers, "no valid answer was compared"
    # Both what is right and what is not must have been among them.
    assert account.codes["OK"] > 50
    assert account.codes["INVALID_ARGUMENT"] > 100
    assert account.codes["NOT_FOUND"] > 5


def test_mutated_registry_objects_break_hang_and_tell_nothing(deck: Deck, tmp_path: Path) -> None:
    registry: Registry = deck.registry
    registry.move_alias("clf", "canary", {"1": 90, "2": 10})
    revision = registry.resolve("clf@1")
    registry.attach(revision, "evaluation", {"metrics": {"accuracy": 0.9}})
    registry.tag(revision, "good")
    registry.protect("short", "prod", ["accuracy >= 0.5"])
    registry.hold([revision.digest], "test")
    account = fuzz_registry(deck.folder / "registry", tmp_path / "scratch", objects=300, seed=5)
    result = account.result()
    assert (result["requests"], result["crashes"], result["hangs"], result["leaked"]) == (300, 0, 0, 0), result
    assert account.codes["DAMAGED"] > 50


async def test_a_server_that_breaks_hangs_or_tells_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loradeck_bench.fuzz.sending.HANG_SECONDS", 4.0)

    async def bad(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        size = len(request) % 4
        if size == 0:
            raise ValueError("secret of the inside")
        if size == 1:
            await asyncio.sleep(60)
        if size == 2:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no file /srv/models/secret.bin")
        return b""

    class Everything(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(bad)  # type: ignore[arg-type]

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Everything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    account: Account = await fuzz_server(f"127.0.0.1:{port}", f"127.0.0.1:{port}", NAMES, requests=200, seed=1)
    await server.stop(0)
    assert account.crashes
    assert account.hangs
    assert any("/srv/models/secret.bin" in text for text in account.leaked)


def test_attempts_are_many_and_the_same_for_a_seed() -> None:
    def some(seed: int) -> list[object]:
        return [attempt for attempt, _ in zip(Attempts(NAMES, seed), range(3000), strict=False)]

    first = some(1)
    assert some(1) == first
    assert some(2) != first
    paths = {getattr(attempt, "path", "") for attempt in first}
    methods = {path.rpartition("/")[2] for path in paths}
    assert {
        "Classify",
        "BatchClassify",
        "AnswerShort",
        "AnswerLong",
        "Generate",
        "MoveAlias",
        "WatchAdapters",
    } <= methods


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("unknown adapter 'x'", False),
        ("the deadline has passed", False),
        ("internal error; request abc", False),
        ('Traceback (most recent call last): File "/x/y.py"', True),
        ("Unexpected <class 'google.protobuf.message.DecodeError'>", True),
        ("no such file: /home/me/registry/x", True),
        ("ValidationError: 1 validation error for Task", True),
        ("<object at 0x7f1234567890>", True),
    ],
)
def test_inner_text_is_known_when_it_is_seen(said: str, told: bool) -> None:
    assert (inner_text(said) is not None) is told
    assert inner_text(said, sent=said) is None
