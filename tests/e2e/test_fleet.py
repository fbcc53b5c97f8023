"""Two real servers on one registry: moves made together, and a rolling restart under load that no caller notices."""

import asyncio
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loradeck_client import AsyncClient, Client, LoradeckError, Sampling
from loradeck_registry.bases.resolve import resolve_base
from loradeck_registry.publish import push_folder
from tests.e2e.conftest import LORADECK, Served, served
from tests.serve.deck import Deck, fill, make_deck
from tests.support.ports import free_ports
from tests.support.tiny import make_tiny_adapter, make_tiny_base

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONTEXT = "The bank opened a branch and the city built a network."
REFERENCES = ("clf@1", "clf@2", "clf-text", "")


@dataclass
class Fleet:
    """Servers at addresses that stay theirs when they are restarted."""

    deck: Deck
    folder: Path
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    running: list[ExitStack] = field(default_factory=list)
    servers: list[Served] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """Inference doors."""
        return [f"127.0.0.1:{port}" for port in self.ports]

    def start(self, number: int) -> tuple[ExitStack, Served]:
        """A server, ready."""
        stack = ExitStack()
        settings = ("--port", str(self.ports[number]), "--set", "drain_seconds=30", "--host-adapters", "8")  # fmt: skip
        return stack, stack.enter_context(served(self.deck, self.folder / f"server-{number}", *settings))

    def restart(self, number: int) -> None:
        """SIGTERM, and a new process at the same address."""
        process = self.servers[number].process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        self.running[number].close()
        self.running[number], self.servers[number] = self.start(number)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two servers."""
    deck = make_deck(tmp_path_factory.mktemp("fleet"))
    fill(deck)
    made = Fleet(deck, tmp_path_factory.mktemp("servers"))
    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(made.start, range(2)))
    made.running, made.servers = [stack for stack, _ in started], [server for _, server in started]
    try:
        yield made
    finally:
        for stack in made.running:
            stack.close()


def move(fleet: Fleet, revision: int, output: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, object]]:
    """`loradeck adapters move clf prod REVISION --wait`, and what it wrote."""
    command = [*LORADECK, "adapters", "move", "clf", "prod", str(revision), "--wait", "--registry", fleet.deck.url,
               "--why", "the test", "--timeout", "60", "--json", str(output)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done, json.loads(output.read_text())


def revisions(fleet: Fleet) -> list[int]:
    """The revision that each server means by clf."""
    found = []
    for address in fleet.addresses:
        with Client(address) as client:
            found.append(client.classify(CONTEXT, adapter="clf").provenance.revision)
    return found


def test_both_servers_flip_or_none_does(fleet: Fleet, tmp_path: Path) -> None:
    assert revisions(fleet) == [1, 1]
    done, result = move(fleet, 2, tmp_path / "moved.json")
    assert done.returncode == 0, done.stderr
    assert [server["state"] for server in result["servers"]] == ["flipped", "flipped"]  # type: ignore[attr-defined]
    assert revisions(fleet) == [2, 2]

    # Trained on another base: each server says so by itself, and neither moves.
    other = resolve_base(f"dir:{make_tiny_base(tmp_path / 'other', seed=9)}", fleet.deck.registry)
    folder = make_tiny_adapter(other.folder, tmp_path / "made", seed=9)
    bad = push_folder(fleet.deck.registry, "clf", folder, other, task=fleet.deck.task("generate"))
    done, result = move(fleet, bad.number, tmp_path / "refused.json")
    assert done.returncode == 1
    assert "stays at revision 2 on every server" in done.stderr
    states = [(server["state"], server["reason"]) for server in result["servers"]]  # type: ignore[attr-defined]
    assert states == [("refused", "BASE_MISMATCH")] * 2
    assert revisions(fleet) == [2, 2]


@dataclass
class Load:
    """Callers that ask without a pause until they are told to stop, and what they got."""

    addresses: list[str]
    golden: dict[str, str]
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Four callers, in a thread of their own."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with AsyncClient(self.addresses, timeout=60) as client:
            await asyncio.gather(*(self._caller(client, number) for number in range(4)))

    async def _caller(self, client: AsyncClient, number: int) -> None:
        while not self.stop.is_set():
            reference = REFERENCES[number % len(REFERENCES)]
            number += 1
            try:
                text = await ask(client, reference)
            except LoradeckError as error:
                self.failures.append(f"{reference}: {error.reason}: {error.message}")
                continue
            if text != self.golden[reference]:
                self.wrong.append(f"{reference}: {text!r} is not {self.golden[reference]!r}")
            self.done[reference] += 1
            await asyncio.sleep(0.02)


async def ask(client: AsyncClient, reference: str) -> str:
    """A streamed answer of the base, or a label."""
    if not reference:
        stream = client.answer_long("What?", context=CONTEXT, sampling=Sampling(max_tokens=24, temperature=0))
        return (await stream.result()).text
    return (await client.classify(CONTEXT, adapter=reference)).label


async def golden_answers(address: str) -> dict[str, str]:
    """What one server answers when nothing happens to it."""
    async with AsyncClient(address) as client:
        return {reference: await ask(client, reference) for reference in REFERENCES}


def test_rolling_restart_under_load_fails_no_request(fleet: Fleet) -> None:
    load = Load(fleet.addresses, asyncio.run(golden_answers(fleet.addresses[0])))
    thread = threading.Thread(target=load.run)
    thread.start()
    try:
        time.sleep(2)
        counts = []
        for number in range(2):
            fleet.restart(number)
            time.sleep(2)
            counts.append(sum(load.done.values()))
    finally:
        load.stop.set()
        thread.join(90)
    # For `pytest -s`: the figures of docs/operations.md.
    print(json.dumps({"requests": sum(load.done.values()) + len(load.failures), "failed": len(load.failures),
                      "wrong_tokens": len(load.wrong), "restarts": 2}))  # fmt: skip
    assert not load.failures, f"{len(load.failures)} of {sum(load.done.values())} failed: {load.failures[:3]}"
    assert not load.wrong, load.wrong[:3]
    assert min(load.done[reference] for reference in REFERENCES) > 10
    assert counts[1] > counts[0] > 20, "hardly anybody asked while the servers were restarted"
    # Both serve again, and are both known to the registry.
    assert len(set(revisions(fleet))) == 1
    assert len(fleet.deck.registry.members()) == 2
