"""Starting, dying and stopping of the real server and its engine."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from loradeck_client import Client, RetryPolicy, Sampling, UnavailableError
from tests.e2e.conftest import LORADECK, served
from tests.e2e.test_engine_processes import words
from tests.serve.deck import Deck

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONTEXT = "The bank opened a branch and the city built a network."
ONCE = RetryPolicy(attempts=1)


def gone(processes: list[psutil.Process], seconds: float = 60) -> list[psutil.Process]:
    """What is left of `processes` after at most `seconds`."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def ask_until_failure(client: Client) -> None:
    """Ask for at most some seconds; raises what the first failing call raises."""
    for _ in range(200):
        client.classify(CONTEXT, adapter="clf")
        time.sleep(0.05)


def test_killed_engine_is_restarted_and_sigterm_lets_requests_end(served_deck: Deck, tmp_path: Path) -> None:
    with served(served_deck, tmp_path / "server", "--set", "drain_seconds=60") as server:
        client = Client(server.inference, timeout=60, retry=ONCE)
        label = client.classify(CONTEXT, adapter="clf").label
        engine = next(p for p in server.family() if "EngineCore" in words(p))
        engine.send_signal(signal.SIGKILL)
        with pytest.raises(UnavailableError):
            ask_until_failure(client)
        deadline = time.monotonic() + 240
        while True:
            try:
                reply = client.classify(CONTEXT, adapter="clf")
                break
            except UnavailableError:
                assert time.monotonic() < deadline, "the engine was not restarted"
                time.sleep(0.5)
        assert reply.label == label
        assert reply.provenance.residency == "hot", "the adapter was not brought back with the engine"

        family = server.family()
        stream = client.answer_long("What?", context=CONTEXT, adapter="long", sampling=Sampling(max_tokens=300))
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        final = stream.result()
        assert final.usage.output_tokens == 300
        assert server.process.wait(120) == 0
        assert not gone(family)
        client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_the_engine_starts_is_quick_and_leaves_nothing(
    served_deck: Deck, tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "log.txt"
    command = [*LORADECK, "serve", "--base", f"dir:{served_deck.base.folder}", "--registry", served_deck.url,
               "--port", "0", "--admin-port", "0", "--metrics-port", "0"]  # fmt: skip
    with log.open("wb") as error:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=error, start_new_session=True)
    server = psutil.Process(process.pid)
    deadline = time.monotonic() + 120
    while not any("EngineCore" in words(p) for p in server.children()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = server.children(recursive=True)
    # As a terminal does: Ctrl+C reaches the whole group, a manager's SIGTERM the server alone.
    if number is signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(120) == 0
    assert not gone(family)
    assert "Traceback" not in log.read_text()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`loradeck serve` that is expected to end by itself."""
    return subprocess.run([*LORADECK, "serve", *arguments], capture_output=True, text=True, timeout=120, check=False)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error line, which is all that there is."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_missing_base_registry_and_config_are_one_line(served_deck: Deck, tmp_path: Path) -> None:
    registry = ["--registry", served_deck.url]
    nothing = run("--base", f"dir:{tmp_path / 'nothing'}", *registry)
    assert nothing.returncode == 1
    assert "no base folder" in only_line(nothing)
    unknown = run("--base", "nobody", *registry)
    assert unknown.returncode == 1
    assert "nobody" in only_line(unknown)
    empty = run("--base", f"dir:{served_deck.base.folder}", "--registry", str(tmp_path))
    assert empty.returncode == 1
    assert "is not a registry" in only_line(empty)
    adapter = run("--base", "clf", *registry)
    assert adapter.returncode == 1
    assert "is an adapter" in only_line(adapter)
    config = run("--base", "nobody", "--config", str(tmp_path / "no.yaml"))
    assert config.returncode == 2
    assert "no.yaml" in only_line(config)
    key = run("--base", "nobody", "--set", "slot=3")
    assert key.returncode == 2
    assert "did you mean `slots`" in only_line(key)


@pytest.mark.parametrize("door", ["--port", "--admin-port", "--metrics-port"])
def test_port_in_use_is_one_line(served_deck: Deck, door: str) -> None:
    ports = {"--port": "0", "--admin-port": "0", "--metrics-port": "0"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports[door] = str(taken.getsockname()[1])
        flat = [part for pair in ports.items() for part in pair]
        done = run("--base", f"dir:{served_deck.base.folder}", "--registry", served_deck.url, *flat)
    assert done.returncode == 1
    assert ports[door] in only_line(done)
