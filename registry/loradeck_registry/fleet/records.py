"""What a move made together leaves in the registry: what is meant, each server's answers, and how it ended.

    moves/<move>.intent.json             name, alias, revision, and for how many seconds the servers hold it ready
    moves/<move>.vote.<server>.json      ready, refused with a reason, or elsewhere: the adapter is none of its base
    moves/<move>.outcome.json            moved or not, written once
    moves/<move>.flipped.<server>.json   the alias means the revision on this server now

Only the alias's log decides what the alias means. All this is talk about it: whoever dies leaves nothing half done.
"""

import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from loradeck_registry import changes, layout
from loradeck_registry.changes import OVERLAP
from loradeck_registry.errors import LoradeckError, NotFoundError
from loradeck_registry.log import decode, encode
from loradeck_registry.records import IntentRecord, OutcomeRecord, Record, VoteRecord
from loradeck_registry.stores.store import Store

Answer = Literal["ready", "refused", "elsewhere"]
_FORGOTTEN = timedelta(hours=1)


@dataclass(frozen=True)
class Intent:
    """A move that is being prepared: servers load `name`@`revision` and hold it for `seconds` after they read this."""

    id: str
    name: str
    alias: str
    revision: int
    digest: str
    who: str
    seconds: float
    begin: datetime

    def over(self, now: datetime) -> bool:
        """Whether nobody waits for it any more."""
        return self.begin + timedelta(seconds=self.seconds) + OVERLAP < now


@dataclass(frozen=True)
class Vote:
    """A server's answer. `reason` and `message` say why it refuses; `seconds` is how long it took."""

    server: str
    answer: Answer
    seconds: float = 0.0
    reason: str = ""
    message: str = ""


def announce(store: Store, intent: Intent) -> None:
    """Let every server know."""
    forget(store)
    record = asdict(intent) | {"format": 1, "begin": intent.begin.isoformat()}
    store.put_if_absent(layout.move(intent.id, "intent"), encode(record))
    changes.mark(store, intent.name, intent.alias, move=intent.id)


def new_id() -> str:
    """An id for a move; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}"


def read_intent(store: Store, identifier: str) -> Intent | None:
    """What a move means to do, None if it is gone."""
    record = _read(store, layout.move(identifier, "intent"), IntentRecord)
    if record is None:
        return None
    return Intent(
        identifier,
        str(record["name"]),
        str(record["alias"]),
        int(record["revision"]),
        str(record["digest"]),
        str(record["who"]),
        float(record["seconds"]),
        datetime.fromisoformat(record["begin"]),
    )


def open_moves(store: Store) -> list[str]:
    """Ids of moves that may be under way: for a server that has just come."""
    oldest = f"{datetime.now(UTC) - _FORGOTTEN:%Y%m%dT%H%M%S}"
    return [move for move, record in _all(store) if record == "intent" and move >= oldest]


def vote(store: Store, identifier: str, answer: Vote) -> None:
    """Give a server's answer; the first one counts."""
    key = layout.move(identifier, f"vote.{answer.server}")
    store.put_if_absent(key, encode(asdict(answer)), fleeting=True)


def read_votes(store: Store, identifier: str, known: dict[str, Vote]) -> None:
    """Add to `known`, by server, the answers that have come since."""
    for server in _servers(store, identifier, "vote."):
        if server not in known:
            record = _read(store, layout.move(identifier, f"vote.{server}"), VoteRecord)
            if record is not None:
                known[server] = Vote(
                    server,
                    record["answer"],
                    float(record["seconds"]),
                    str(record["reason"]),
                    str(record["message"]),
                )


def end(store: Store, identifier: str, moved: bool) -> None:
    """Say how the move ended."""
    store.put_if_absent(layout.move(identifier, "outcome"), encode({"format": 1, "moved": moved}), fleeting=True)


def outcome(store: Store, identifier: str) -> bool | None:
    """Whether the alias was moved; None as long as that is not known."""
    record = _read(store, layout.move(identifier, "outcome"), OutcomeRecord)
    if record is None:
        # Without its intent it is over, and all servers have said what they had to say.
        return None if store.size(layout.move(identifier, "intent")) is not None else False
    return bool(record["moved"])


def say_flipped(store: Store, identifier: str, server: str) -> None:
    """The alias means the revision on this server now."""
    store.put_if_absent(layout.move(identifier, f"flipped.{server}"), encode({"format": 1}), fleeting=True)


def flipped(store: Store, identifier: str) -> set[str]:
    """Servers that have flipped."""
    return set(_servers(store, identifier, "flipped."))


def remove(store: Store, identifier: str) -> None:
    """Take a move's records away, as far as that is allowed."""
    with suppress(LoradeckError):
        for move, record in _all(store):
            if move == identifier:
                store.delete(layout.move(move, record))


def forget(store: Store) -> None:
    """Take away what moves of long ago have left."""
    oldest = f"{datetime.now(UTC) - _FORGOTTEN:%Y%m%dT%H%M%S}"
    with suppress(LoradeckError):
        for move, record in _all(store):
            if move < oldest:
                store.delete(layout.move(move, record))


def _all(store: Store) -> list[tuple[str, str]]:
    """Move and name of every record, intents last."""
    names = (name.removesuffix(".json").partition(".") for name in store.entries(layout.MOVES))
    return sorted(((move, record) for move, _, record in names if record), key=lambda pair: pair[1] == "intent")


def _servers(store: Store, identifier: str, kind: str) -> list[str]:
    """Servers that have left a record of this kind."""
    return [name.removeprefix(kind) for move, name in _all(store) if move == identifier and name.startswith(kind)]


def _read(store: Store, key: str, model: type[Record]) -> dict[str, Any] | None:
    try:
        return decode(store.get(key), key, model)
    except NotFoundError:
        return None
