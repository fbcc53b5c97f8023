"""The real engine behind the real command: one server for the session, started as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from loradeck_client import AdminClient, Client
from tests.serve.deck import Deck, fill, make_deck

LORADECK = [sys.executable, "-m", "loradeck_cli.main"]
READY = re.compile(r"^ready inference=(\S+) admin=(\S+) metrics=(\S+) base=(\S+)$", re.MULTILINE)
START_SECONDS = 240


@dataclass(frozen=True)
class Served:
    """A server process and its addresses."""

    process: subprocess.Popen[bytes]
    inference: str
    admin: str
    metrics: str
    base: str
    log: Path
    deck: Deck
    settings: Path

    def client(self) -> Client:
        """For applications."""
        return Client(self.inference, timeout=60)

    def admin_client(self) -> AdminClient:
        """For operators."""
        return AdminClient(self.admin, timeout=60)

    def family(self) -> list[psutil.Process]:
        """All processes below the server, now."""
        return psutil.Process(self.process.pid).children(recursive=True)

    @contextmanager
    def limits(self, **limits: int) -> Iterator[None]:
        """Other limits of the running server, for a while. Only where its settings file is its own."""
        before = self.settings.read_text()
        try:
            self._set(yaml.safe_dump({"limits": limits}))
            yield
        finally:
            self._set(before)

    def _set(self, settings: str) -> None:
        changes = self.log.read_text().count("limits changed")
        self.settings.write_text(settings)
        deadline = time.monotonic() + 30
        while self.log.read_text().count("limits changed") == changes:
            assert time.monotonic() < deadline, "the server did not take other limits"
            time.sleep(0.05)


@contextmanager
def served(deck: Deck, folder: Path, *arguments: str, settings: Path | None = None) -> Iterator[Served]:
    """`loradeck serve` as a child process; whatever happens, nothing of it is left. `settings`: none are empty ones."""
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / "out.txt", folder / "log.txt"
    if settings is None:
        settings = folder / "settings.yaml"
        settings.write_text("{}\n")
    command = [
        *LORADECK, "serve", "--config", str(settings), "--base", f"dir:{deck.base.folder}", "--registry", deck.url,
        "--port", "0", "--admin-port", "0", "--metrics-port", "0", "--set", "engine.dtype=float32",
        "--set", "engine.enforce_eager=true",
        "--set", f"cache={folder / 'cache'}", "--set", "engine.kv_cache_gib=0.25", *arguments,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LORADECK_CACHE": str(folder / "identities")}
    with out.open("wb") as standard, log.open("wb") as error:
        process = subprocess.Popen(command, stdout=standard, stderr=error, env=environment)
    children: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + START_SECONDS
        while (ready := READY.search(out.read_text())) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not get ready:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        yield Served(process, ready[1], ready[2], ready[3], ready[4], log, deck, settings)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in children:
            if child.is_running():
                child.kill()


@pytest.fixture(scope="session")
def served_deck(tmp_path_factory: pytest.TempPathFactory) -> Deck:
    """The deck that the session's servers serve."""
    deck = make_deck(tmp_path_factory.mktemp("served"))
    fill(deck)
    return deck


@pytest.fixture(scope="session")
def server(served_deck: Deck, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The session's server: four slots."""
    with served(served_deck, tmp_path_factory.mktemp("server"), "--host-adapters", "8") as running:
        yield running
