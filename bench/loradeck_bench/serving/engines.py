"""Engines beside `loradeck serve` that it is compared with: one behind a pipe, and vLLM's own HTTP server."""

import json
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradeck_bench.children import Child
from loradeck_registry.errors import UnavailableError

START_SECONDS = 300.0
"""Longest wait for an engine: a cold page cache makes its imports slow."""
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


@contextmanager
def engine_child(settings: Mapping[str, Any], log: Path) -> Iterator[Child]:
    """The engine with these settings (of `loradeck_serve.engine`), asked over the child's input and output."""
    command = [sys.executable, "-m", "loradeck_serve.engine.rounds", "--settings", json.dumps(settings)]
    with Child("engine in process", command, log, pipes=True) as child:
        yield child


@dataclass(frozen=True)
class HttpServer:
    """A starting or running HTTP server."""

    child: Child
    url: str

    def wait(self, note: Callable[[str], None]) -> None:
        """Return once it answers. Raises ChildFailedError if it ends, UnavailableError if it takes too long."""
        while True:
            self.child.check()
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                pass
            if time.monotonic() - self.child.started > START_SECONDS:
                raise UnavailableError(f"vLLM's HTTP server was not ready after {START_SECONDS:.0f} s")
            note(f"vLLM's HTTP server: {' '.join(self.child.tail())}")
            time.sleep(0.2)


@contextmanager
def http_server(model: Path, options: Mapping[str, Any], log: Path) -> Iterator[HttpServer]:
    """vLLM's OpenAI-compatible server on a free port, without this project's plugin. `options` are its engine arguments
    by their names in Python; True and False become flags. It is not ready yet when the block is entered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {"model": model, "host": "127.0.0.1", "port": port, "disable_uvicorn_access_log": True, **options}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *map(str, arguments(flags))]
    with Child("HTTP server", command, log, environment={**QUIET, "VLLM_PLUGINS": ""}) as child:
        yield HttpServer(child, f"http://127.0.0.1:{port}")


def arguments(options: Mapping[str, Any]) -> Iterator[str]:
    """Options as a command line has them."""
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", str(value))


def idle_cores(processes: Mapping[str, int], seconds: float = 2.0) -> dict[str, float]:
    """Cores that each of `processes` (ids by name), with all its children, keeps busy while nobody asks it anything.

    Engines that take turns would slow each other down if one of them waited by spinning.
    """
    before = {name: _cpu_seconds(pid) for name, pid in processes.items()}
    start = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - start
    return {name: round((_cpu_seconds(pid) - before[name]) / passed, 3) for name, pid in processes.items()}


def _cpu_seconds(pid: int) -> float:
    import psutil

    top = psutil.Process(pid)
    times = [process.cpu_times() for process in (top, *top.children(recursive=True))]
    return float(sum(used.user + used.system for used in times))
