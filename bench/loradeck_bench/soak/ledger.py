"""The ledger of a soak: how every request ended, whether that was right, and the steady caller's times."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from loradeck_bench.load.flips import Flip, allowed
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.soak.cast import ALIAS, Cast, Script

Part = Literal["steady", "flood", "cancelled", "expired", "bad"]
EXAMPLES = 5
SETTLED_SECONDS = 15.0
"""After its end a reply is judged this late: by then the server has said which moves it follows."""
HANG = "hang"
CANCELLED = "cancelled"
_MAY: dict[Part, frozenset[str]] = {
    "steady": frozenset({"ok"}),
    "flood": frozenset({"ok", "exhausted", "deadline"}),
    "cancelled": frozenset({"ok", CANCELLED}),
    "expired": frozenset({"ok", "deadline"}),
    "bad": frozenset({"precondition", "not_found"}),
}
_CRASH = frozenset({"internal", "unavailable"})


@dataclass
class Ledger:
    """Add every request once; replies are judged later, by `settle`. `revision_of` maps the digest of a copy to that of
    its original, whose answers it must give; `flips` has every move made so far."""

    cast: Cast
    script: Script
    original: Callable[[str], str]
    flips: Callable[[], Sequence[Flip]]
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: int = 0
    crashes: int = 0
    hangs: int = 0
    unexpected: int = 0
    checked: int = 0
    examples: list[str] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)
    """Of the steady caller: when a request was meant to be sent, and seconds until its end."""
    _open: list[tuple[Part, RequestRecord]] = field(default_factory=list)

    def add(self, part: Part, record: RequestRecord) -> None:
        """A request has ended: `record.status` says how."""
        self.outcomes.setdefault(part, Counter())[f"{record.status} {record.reason}".strip()] += 1
        if record.status == HANG or (part == "steady" and record.status == "deadline"):
            self.hangs += 1
            self._example(f"{part}: {record.adapter or 'base'} did not end in time")
        elif record.status in _CRASH:
            self.crashes += 1
            self._example(f"{part}: {record.adapter or 'base'}: {record.status} {record.reason}")
        elif record.status not in _MAY[part] or (part == "bad" and record.reason != self.cast.bad[record.adapter]):
            self.unexpected += 1
            self._example(f"{part}: {record.adapter or 'base'}: {record.status} {record.reason}")
        if part == "steady" and record.ok and record.latency is not None:
            self.times.append((record.intended, record.latency))
        if record.text:
            self._open.append((part, record))

    def settle(self, now: float) -> None:
        """Judge the replies that ended long enough before `now`."""
        due = [(part, r) for part, r in self._open if r.end is None or r.end <= now - SETTLED_SECONDS]
        self._open = [(part, r) for part, r in self._open if not (r.end is None or r.end <= now - SETTLED_SECONDS)]
        for part, record in due:
            self.checked += 1
            why = self._wrong(part, record)
            if why is not None:
                self.wrong += 1
                self._example(f"{part}: {record.adapter or 'base'}: {why}")

    def describe(self) -> dict[str, Any]:
        """Counts in the form of report files."""
        return {
            "requests": sum(count.total() for count in self.outcomes.values()),
            "crashes": self.crashes,
            "hangs": self.hangs,
            "wrong_tokens": self.wrong,
            "unexpected": self.unexpected,
            "replies_checked": self.checked,
            "outcomes": {part: dict(sorted(count.items())) for part, count in sorted(self.outcomes.items())},
            "examples": self.examples,
        }

    def _wrong(self, part: Part, record: RequestRecord) -> str | None:
        if part in ("cancelled", "expired"):
            # Its end is unknown, and who answered too: what came must be the beginning of what should have.
            digest = self.cast.initial[record.adapter.partition("@")[0]].digest if record.adapter else ""
            expected = self.script.long[digest, record.row]
            return None if expected.startswith(record.text) else f"{record.text!r} does not begin {expected!r}"
        name = record.adapter.partition("@")[0]
        if name:
            sent, end = record.sent or record.intended, record.end or record.intended
            meant = allowed(self.flips(), self.cast.initial[name].digest, f"{name}@{ALIAS}", sent, end)
            if record.digest not in meant:
                return f"answered by {record.digest[:19]}, which the alias did not mean then"
        elif record.digest:
            return f"a request to the base was answered by {record.answered_by}"
        expected = self.script.short[self.original(record.digest), record.row]
        return None if record.text == expected else f"{record.text!r} is not {expected!r}"

    def _example(self, text: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)
