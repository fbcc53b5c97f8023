"""Progress for people: numbered steps, what runs now, how long it took, what comes next."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from loradeck_bench.report.units import duration

QUIET = 20.0
"""Seconds between two lines about a running step where the output is no terminal."""


class Progress:
    """Announces the steps of `names` in their order. On a terminal the running step has a live line; elsewhere a plain
    line now and then, so that a log shows life too."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self.console = console
        self.done: list[dict[str, Any]] = []
        """Steps that ended: `name` and `seconds`."""
        self.current = ""
        self._names = list(names)
        self._started = time.monotonic()
        self._step_started = self._started
        self._told = self._started
        self._status: Status | None = None

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step. `name` must be one of the announced ones."""
        number = self._names.index(name) + 1
        following = self._names[number] if number < len(self._names) else None
        self.current = name
        self._step_started = self._told = time.monotonic()
        head = f"[bold]\\[{number}/{len(self._names)}][/bold] {escape(name)}"
        tail = f", next: {following}" if following else ""
        line = f"{head} [dim]({duration(self.seconds)} so far{escape(tail)})[/dim]"
        self.console.print(line, highlight=False, soft_wrap=True)
        try:
            if self.console.is_terminal:
                with self.console.status("") as self._status:
                    yield
            else:
                yield
        finally:
            self._status = None
        seconds = time.monotonic() - self._step_started
        self.done.append({"name": name, "seconds": seconds})
        self.console.print(f"      [green]done[/green] in {duration(seconds)}")

    def note(self, text: str) -> None:
        """What the running step is doing right now; shown beside the time it has taken."""
        now = time.monotonic()
        width = self.console.width - 6 if self.console.is_terminal else 160
        line = f"      {duration(now - self._step_started)}  {text}"[: max(40, width)]
        if self._status is not None:
            self._status.update(escape(line.strip()))
        elif now - self._told >= QUIET:
            self._told = now
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A result line inside a step."""
        self.console.print(f"      {text}", markup=False, highlight=False, soft_wrap=not self.console.is_terminal)
