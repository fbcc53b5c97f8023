"""A server as a child process: started, awaited, its addresses read from its ready line, stopped."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from loradeck_bench.children import Child
from loradeck_bench.demo.workplace import Workplace
from loradeck_registry.errors import UnavailableError

_READY = re.compile(r"^ready inference=(\S+) admin=(\S+) metrics=(\S+) base=(\S+)", re.MULTILINE)
_ACCESS = ("LORADECK_TLS", "LORADECK_API_KEY", "LORADECK_INSECURE")
START_SECONDS = 300.0
"""Longest wait for the engine: a cold page cache makes its imports slow."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    child: Child
    address: str
    """Door for applications."""
    admin: str
    """Door for operators."""
    metrics: str
    """Prometheus' door."""
    base: str
    """What the server calls its base in replies."""
    start_seconds: float


@contextmanager
def serving(workplace: Workplace, base: str, name: str, settings: Sequence[str] = ()) -> Iterator[Server]:
    """Serve `base` (a registry reference) on free ports with `settings` (`key=value`); the server and its engine are
    gone when the block is left. Within the block clients and children find no TLS and no key in the environment: those
    are of other servers.

    Raises ChildFailedError with the end of its log if it does not come up, UnavailableError if it takes too long.
    """
    options = ["--port", "0", "--admin-port", "0", "--metrics-port", "0"]
    for setting in settings:
        options += ["--set", setting]
    arguments = ["serve", "--base", base, "--registry", str(workplace.registry), *options]
    with _without_access(), workplace.start(name, arguments) as child:
        while (ready := _READY.search(_text(child))) is None:
            child.check()
            seconds = time.monotonic() - child.started
            if child.poll() is not None or seconds > START_SECONDS:
                tail = "\n".join(child.tail(12))
                raise UnavailableError(
                    f"{name} was not ready after {seconds:.0f} s; last lines of {child.log}:\n{tail}"
                )
            workplace.progress.note(f"{name}: {' '.join(child.tail())}")
            time.sleep(0.2)
        yield Server(child, ready[1], ready[2], ready[3], ready[4], time.monotonic() - child.started)


@contextmanager
def _without_access() -> Iterator[None]:
    """Put aside what the environment says of how servers elsewhere are reached."""
    kept = {name: text for name, text in os.environ.items() if name.startswith(_ACCESS)}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def _text(child: Child) -> str:
    return child.log.read_text(encoding="utf-8", errors="replace")
