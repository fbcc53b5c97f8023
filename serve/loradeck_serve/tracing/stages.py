"""The stages of a request, noted while it runs and made into spans when it has ended: nothing of that is on its way."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

Fact = str | int | float | bool
MOST = 200
"""Stages kept of one call: a batch of texts has some for each."""


@dataclass(frozen=True)
class Stage:
    """A part of a request, on the monotonic clock."""

    name: str
    begin: float
    end: float
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass
class Trail:
    """What one call went through, and who asked for its trace: `parent` holds W3C's `traceparent` and `tracestate`."""

    parent: Mapping[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    left_out: int = 0

    def note(self, name: str, begin: float, end: float, **facts: Fact) -> None:
        """A stage has ended."""
        if len(self.stages) < MOST:
            self.stages.append(Stage(name, begin, end, facts))
        else:
            self.left_out += 1


@dataclass
class Passage:
    """One prompt's way through queue, load and engine."""

    trail: Trail
    residency: str
    """Where the adapter was when the request came; `none` for the base."""
    prompt_tokens: int
    arrival: float = field(default_factory=time.monotonic)
    loaded: float = 0.0
    dispatched: float = 0.0
    first: float = 0.0

    def has_loaded(self, residency: str) -> None:
        """The adapter is in the engine; it was where `residency` says."""
        self.loaded, self.residency = time.monotonic(), residency

    def has_turn(self) -> None:
        """The prompt goes to the engine now."""
        self.dispatched = time.monotonic()

    def first_token(self, moment: float) -> None:
        """The first output has come."""
        self.first = self.first or moment

    def end(self) -> None:
        """The prompt has left the engine, or its way there."""
        now = time.monotonic()
        trail, waited = self.trail, self.loaded or self.arrival
        if self.residency != "none":
            trail.note("load", self.arrival, self.loaded or now, residency=self.residency)
        if self.loaded or self.residency == "none":
            trail.note("queue", waited, self.dispatched or now)
        if self.dispatched:
            trail.note("prefill", self.dispatched, self.first or now, prompt_tokens=self.prompt_tokens)
        if self.first:
            trail.note("decode", self.first, now)
