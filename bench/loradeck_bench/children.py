"""Child processes of a measurement: this package's own commands, logged, supervised, and never left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from loradeck_bench.guard import GRACE_VARIABLE, PARENT_VARIABLE
from loradeck_registry.errors import LoradeckError

TAIL = 12
"""Lines of its log that are shown when a child fails."""


class ChildFailedError(LoradeckError):
    """A child process ended with an error. The message has its name, exit code and the last lines of its log."""

    reason = "CHILD_FAILED"


class Child:
    """A running command. Start it from the main thread: the guard's bond is with the thread that starts it.

    Use as a context manager: leaving it stops the child and everything the child started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        grace: float = 30.0,
        pipes: bool = False,
    ) -> None:
        """Start `command` with its output in `log`. `grace` is in seconds, between SIGTERM and SIGKILL.

        With `pipes` standard input and output are `self.input` and `self.output`, and only standard error is logged.
        """
        self.name = name
        self.log = log
        self.started = time.monotonic()
        self._grace = grace
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loradeck_bench.guard", *command],
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out,
                stderr=out,
                env={
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                    **(environment or {}),
                    GRACE_VARIABLE: str(grace),
                    PARENT_VARIABLE: str(os.getpid()),
                },
                process_group=0,  # a Ctrl+C of the terminal reaches only the parent, which then stops us in order
            )

        self.input, self.output = self._process.stdin, self._process.stdout

    @classmethod
    def loradeck(cls, name: str, arguments: Sequence[str], log: Path, *, environment: Mapping[str, str]) -> "Child":
        """Start a `loradeck` command with this interpreter."""
        return cls(name, [sys.executable, "-m", "loradeck_cli.main", *arguments], log, environment=environment)

    @property
    def pid(self) -> int:
        """Process id of the guard."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise ChildFailedError if it has ended with an error."""
        code = self.poll()
        if code:
            raise ChildFailedError(
                f"{self.name} failed (exit code {code}); last lines of {self.log}:\n" + "\n".join(self.tail(TAIL))
            )

    def stop(self) -> None:
        """Ask it to end, wait, and kill what is left after the grace. Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._grace + 5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self.input, self.output):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def tail(self, count: int = 1) -> list[str]:
        """The last lines of the log that say something; a progress bar's carriage returns count as lines."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 16_384))
            text = log.read().decode("utf-8", errors="replace").replace("\r", "\n")
            return [_readable(line.strip()) for line in text.splitlines() if line.strip()][-count:]
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _readable(line: str) -> str:
    """A line of a log for people: the message of a JSON record, any other line as it is."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("message"), str):
                return str(record["message"])
    return line
