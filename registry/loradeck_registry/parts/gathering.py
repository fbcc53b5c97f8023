"""Fleets: the live servers on this registry, and moves of an alias that all of them make together or none."""

from loradeck_registry.aliases.log import AliasEntry, shares
from loradeck_registry.aliases.log import caller as this_process
from loradeck_registry.aliases.protection import gate
from loradeck_registry.collection import leases
from loradeck_registry.errors import InvalidError
from loradeck_registry.fleet import members, records
from loradeck_registry.fleet.members import Member, Membership
from loradeck_registry.fleet.moving import Progress, Together, make_intent, move_together
from loradeck_registry.fleet.records import Intent, Vote
from loradeck_registry.parts.pointing import Pointing
from loradeck_registry.reference import check_alias, check_name

_LONGEST = 3600.0


class Gathering(Pointing):
    """The part of `Registry` that servers meet in."""

    def membership(self, holder: str, base: str, ttl: float = members.TTL) -> Membership:
        """A place among the servers on this registry, not taken yet. `holder` and `base` are for people."""
        return Membership(self._store, holder, base, ttl)

    def members(self) -> list[Member]:
        """Servers that may be alive, by id."""
        return members.members(self._store)

    def move_together(
        self,
        name: str,
        alias: str,
        target: str,
        *,
        expect: int | None = None,
        who: str = "",
        why: str = "",
        seconds: float = 120.0,
        progress: Progress = lambda _: None,
    ) -> Together:
        """Let every live server load and probe `target`, then point `name@alias` at it; if one refuses, change nothing.

        Blocks until every server has flipped, at most `seconds` (up to 3600) and a little; a server that dies
        meanwhile is waited for until its membership ends (30 s unless it was set up otherwise). What `Together` says
        has happened when this returns. Raises what `move_alias` raises, ConflictError (ALIAS_MOVED) also when somebody
        else moves the alias meanwhile.
        """
        if not 0 < seconds <= _LONGEST:
            raise InvalidError(f"wait more than 0 and at most {_LONGEST:.0f} seconds", field="timeout")
        check_alias(alias)
        revision = self._within(check_name(name), target)
        now = self._alias(name, alias).check(expect)
        previous = now.revision if now else 0
        with leases.take(self._store, f"alias-{this_process()}", {revision.digest}) as lease:
            if (check := gate(self._store, name, alias, shares([(revision.number, revision.digest, 1.0)]))) is not None:
                check(now)
            intent = make_intent(name, alias, revision.number, revision.digest, who or this_process(), seconds)
            number = str(revision.number)

            def commit() -> AliasEntry:
                lease.renew()
                return self.move_alias(name, alias, number, expect=previous, who=who, why=why)

            return move_together(self._store, intent, commit, previous, progress)

    def open_moves(self) -> list[str]:
        """Ids of moves that may be under way."""
        return records.open_moves(self._store)

    def intent(self, move: str) -> Intent | None:
        """What a move means to do; None if it is over."""
        return records.read_intent(self._store, move)

    def vote(self, move: str, answer: Vote) -> None:
        """Answer a move, as a server."""
        records.vote(self._store, move, answer)

    def outcome(self, move: str) -> bool | None:
        """Whether a move was made; None while it is being prepared."""
        return records.outcome(self._store, move)

    def say_flipped(self, move: str, server: str) -> None:
        """Say that a server has made the move."""
        records.say_flipped(self._store, move, server)
