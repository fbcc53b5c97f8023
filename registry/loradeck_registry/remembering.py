"""What was read is remembered, and not without end: a process that serves for months reads more than it can keep."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remember(known: dict[K, V], key: K, value: V, most: int) -> V:
    """Keep `value` in `known`, and at most `most` in all: what was read first goes first. For any number of threads."""
    known[key] = value
    while len(known) > most:
        try:
            del known[next(iter(known))]
        except (KeyError, RuntimeError, StopIteration):
            # Another thread does the same at this moment.
            break
    return value
