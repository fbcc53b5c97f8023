"""Held-out rows that the training rows give away: the same text, or thirteen words in a row (Brown et al., 2020)."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from loradeck_registry.errors import PreconditionError

WORDS = 13
_WORD = re.compile(r"\w+", re.UNICODE)


@dataclass(frozen=True)
class Leakage:
    """Of `rows` held-out rows, how many stand in the training rows: `exact`, as a whole but for case, spaces and
    punctuation; `overlapping`, with at least one run of 13 words (those that are exact among them, if long enough).
    `first` is the number of the first of either, from 1, or None."""

    rows: int
    exact: int
    overlapping: int
    first: int | None

    def as_json(self) -> dict[str, int | None]:
        """For the record."""
        return {"rows": self.rows, "exact": self.exact, "overlapping": self.overlapping, "first": self.first}

    def sentence(self, what: str) -> str:
        """One line for people."""
        return (
            f"{self.exact} of {self.rows} {what} rows also stand in the training rows, and {self.overlapping} share "
            f"{WORDS} words in a row with them (the first is row {self.first})"
        )


def find_leakage(training: Iterable[str], held_out: Iterable[str]) -> Leakage:
    """Compare texts. Only the held-out side is kept in memory, as hashes; training texts are passed through."""
    whole: dict[int, list[int]] = {}
    runs: dict[int, list[int]] = {}
    count = 0
    for count, text in enumerate(held_out, 1):
        words = _words(text)
        whole.setdefault(_hash(words), []).append(count)
        for run in _runs(words):
            runs.setdefault(run, []).append(count)
    exact: set[int] = set()
    overlapping: set[int] = set()
    for text in training:
        words = _words(text)
        exact.update(whole.get(_hash(words), ()))
        for run in _runs(words):
            overlapping.update(runs.get(run, ()))
    return Leakage(count, len(exact), len(overlapping), min(exact | overlapping, default=None))


def refuse_leakage(found: Leakage, what: str) -> None:
    """Raise PreconditionError (DATA_LEAKAGE) if anything leaks."""
    if found.exact or found.overlapping:
        raise PreconditionError(
            f"{found.sentence(what)}: take them out, or set data.leakage to report", reason="DATA_LEAKAGE",
            field="data.leakage",
        )  # fmt: skip


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _runs(words: list[str]) -> Iterator[int]:
    for start in range(len(words) - WORDS + 1):
        yield _hash(words[start : start + WORDS])


def _hash(words: list[str]) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest())
