"""A move in two phases: every live server loads and probes the revision, then the alias moves for all, or for none.

The one entry in the alias's log is the decision, as in every move. Before it, a server's answer is a promise to keep
the revision loaded until the outcome or its own patience ends; after it, each server flips to what it holds already. So
no crash blocks anybody: without the entry nothing has happened, with it every server follows the log as it always does.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from loradeck_registry.aliases.log import AliasEntry
from loradeck_registry.fleet import records
from loradeck_registry.fleet.members import Member, beats, members
from loradeck_registry.fleet.records import Intent, Vote
from loradeck_registry.stores.store import Store

State = Literal["waiting", "ready", "refused", "elsewhere", "gone", "silent", "flipped"]
_POLL = 0.2
_LOOK = 1.0
"""Seconds between looks at who is alive."""
_FLIP = 10.0
"""Seconds that servers get to say that they have flipped, whatever is left of the time."""


@dataclass(frozen=True)
class Standing:
    """One server in a move. `gone`: it has died or left; `silent`: it is alive and has not answered in time."""

    server: str
    state: State
    seconds: float = 0.0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Together:
    """How a move ended: `entry` is the alias's new entry, None if nothing was moved. `servers` are in order of id."""

    name: str
    alias: str
    revision: int
    digest: str
    previous: int
    entry: AliasEntry | None
    servers: tuple[Standing, ...]

    @property
    def blocking(self) -> tuple[Standing, ...]:
        """Servers for which nothing was moved."""
        return tuple(standing for standing in self.servers if standing.state in ("refused", "silent"))


Progress = Callable[[tuple[Standing, ...]], None]


class _Watch:
    """Who of the members lives, by this process's own clock: one whose beat stays the same for its `ttl` is gone.

    While this process is held up it does not look, so that time shows nothing: of any stretch between two looks at most
    half a `ttl` counts.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, tuple[Member, int, float]] = {}
        """Each member, its last beat, and the seconds for which that has stayed the same."""
        self._looked = time.monotonic()
        self._next = 0.0
        self.gone: set[str] = set()

    @property
    def known(self) -> list[str]:
        """All that were ever seen."""
        return sorted(self._seen)

    @property
    def living(self) -> set[str]:
        """Those that count."""
        return self._seen.keys() - self.gone

    def look(self, *, now: bool = False) -> None:
        """Bring it up to date, at most once in a while unless it must be `now`."""
        moment = time.monotonic()
        if not now and moment < self._next:
            return
        self._next = moment + _LOOK
        passed, self._looked = moment - self._looked, moment
        newest = beats(self._store)
        for identifier, (member, beat, unchanged) in self._seen.items():
            latest = newest.get(identifier)
            if latest is not None and latest != beat:
                self._seen[identifier] = (member, latest, 0.0)
                self.gone.discard(identifier)
            else:
                unchanged += min(passed, member.ttl / 2)
                self._seen[identifier] = (member, beat, unchanged)
                if latest is None or unchanged > member.ttl:
                    self.gone.add(identifier)
        if newest.keys() - self._seen.keys():
            for member in members(self._store):
                self._seen.setdefault(member.id, (member, member.beat, 0.0))


class _Move:
    """One move under way."""

    def __init__(self, store: Store, intent: Intent, progress: Progress) -> None:
        self._store = store
        self._intent = intent
        self._progress = progress
        self._until = time.monotonic() + intent.seconds
        self._watch = _Watch(store)
        self._votes: dict[str, Vote] = {}
        self._shown: tuple[Standing, ...] = ()

    def prepare(self) -> tuple[Standing, ...]:
        """Return when every live server has answered, or the time is over."""
        while True:
            self._watch.look()
            records.read_votes(self._store, self._intent.id, self._votes)
            if not self._watch.living - self._votes.keys():
                # Somebody may have come this moment.
                self._watch.look(now=True)
                if not self._watch.living - self._votes.keys():
                    return self._standings("silent")
            if time.monotonic() > self._until:
                return self._standings("silent")
            self._show(self._standings("waiting"))
            time.sleep(_POLL)

    def follow(self) -> tuple[Standing, ...]:
        """Return when every server that was ready has flipped, or the time is over."""
        until = max(self._until, time.monotonic() + _FLIP)
        while True:
            self._watch.look()
            done = records.flipped(self._store, self._intent.id)
            now = tuple(
                replace(standing, state="flipped") if standing.server in done else standing
                for standing in self._standings("waiting")
            )
            waiting = [s for s in now if s.state == "ready" and s.server not in self._watch.gone]
            if not waiting or time.monotonic() > until:
                return now
            self._show(now)
            time.sleep(_POLL)

    def _standings(self, unanswered: State) -> tuple[Standing, ...]:
        return tuple(self._standing(server, unanswered) for server in self._watch.known)

    def _standing(self, server: str, unanswered: State) -> Standing:
        vote = self._votes.get(server)
        if vote is not None and (vote.answer != "ready" or server not in self._watch.gone):
            return Standing(server, vote.answer, vote.seconds, vote.reason, vote.message)
        return Standing(server, "gone" if server in self._watch.gone else unanswered)

    def _show(self, standings: tuple[Standing, ...]) -> None:
        if standings != self._shown:
            self._shown = standings
            self._progress(standings)


def move_together(
    store: Store, intent: Intent, commit: Callable[[], AliasEntry], previous: int, progress: Progress
) -> Together:
    """Prepare on every live server, `commit` if none objects, and wait until all have flipped.

    Blocks for at most `intent.seconds` and a little. Raises what `commit` raises; then nothing was moved.
    """
    records.announce(store, intent)
    move = _Move(store, intent, progress)
    entry: AliasEntry | None = None
    try:
        standings = move.prepare()
        if not any(standing.state in ("refused", "silent") for standing in standings):
            entry = commit()
    finally:
        # Also when it was interrupted: servers need not hold the revision for nothing.
        records.end(store, intent.id, moved=entry is not None)
    if entry is not None:
        standings = move.follow()
        if all(standing.state != "ready" for standing in standings):
            records.remove(store, intent.id)
    return Together(intent.name, intent.alias, intent.revision, intent.digest, previous, entry, standings)


def make_intent(name: str, alias: str, revision: int, digest: str, who: str, seconds: float) -> Intent:
    """The intent of a move that begins now."""
    return Intent(records.new_id(), name, alias, revision, digest, who, seconds, datetime.now(UTC))


def plain(together: Together) -> Mapping[str, object]:
    """A move as JSON."""
    return {
        "moved": together.entry is not None,
        "name": together.name,
        "alias": together.alias,
        "revision": together.revision,
        "digest": together.digest,
        "previous_revision": together.previous,
        "servers": [vars(standing) for standing in together.servers],
    }
