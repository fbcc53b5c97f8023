"""Which revision goes first: out of the engine when room is needed, and out of the server's memory of what it knew."""

from collections.abc import Collection, Iterable, Mapping

from loradeck_serve.residency.entry import Entry, State


def least_needed(entries: Iterable[Entry], pinned: Collection[str], shared: Mapping[str, float]) -> Entry | None:
    """The loaded revision that was used least recently, of those without a request or a pin; None if all are needed.

    `shared` is when revisions that share an alias were last asked for through it (`contract.Needs.shared_use`).
    """
    idle = (
        e
        for e in entries
        if e.state is State.LOADED and not e.holds and e.drain is None and e.revision.digest not in pinned
    )
    return min(idle, key=lambda e: max(e.last_use_time, e.load_time, shared.get(e.revision.digest, 0.0)), default=None)


def forgettable(entries: Iterable[Entry], count: int) -> list[Entry]:
    """At most `count` revisions that are neither in the engine nor on their way, least recently used first."""
    idle = (
        e
        for e in entries
        if e.state in (State.CACHED, State.FAILED) and not e.holds and e.load is None and e.drain is None
    )
    return sorted(idle, key=lambda e: e.last_use_time)[:count]
