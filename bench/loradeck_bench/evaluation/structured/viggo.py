"""ViGGO: dialogue act and slots of a meaning representation, `inform(name[Doom], genres[action, shooter])`."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loradeck_bench.evaluation.figure import Figure, combined, mean
from loradeck_bench.evaluation.measured import method

LISTS = frozenset({"genres", "platforms", "player_perspective"})
"""Slots whose value is a list, in any order; a comma in another value is part of it."""
_FUNCTION = re.compile(r"\s*([a-z_]+)\s*\(\s*(.*?)\s*\)\s*\.?\s*", re.DOTALL)
_SLOT = re.compile(r"\s*([a-z_]+)\s*\[([^\[\]]*)\]\s*(?:,|$)")

Slots = Counter[tuple[str, tuple[str, ...]]]


@dataclass(frozen=True)
class Meaning:
    """A parsed representation. Each slot is its name and its value, a list sorted."""

    function: str
    slots: Slots


def parse_meaning(text: str) -> Meaning | None:
    """The meaning in `text`, None if it is not of the form `function(slot[value], …)`."""
    match = _FUNCTION.fullmatch(text)
    if match is None:
        return None
    slots: Slots = Counter()
    rest = match[2]
    while rest:
        slot = _SLOT.match(rest)
        if slot is None:
            return None
        slots[slot[1], _value(slot[1], slot[2])] += 1
        rest = rest[slot.end() :]
    return Meaning(match[1], slots)


def viggo(answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """`viggo_parsed`, `viggo_function`, slot precision, recall and F1 over all slots of the set, and `viggo_exact`.

    An answer that does not parse has no function and no slot. Raises ValueError for a reference that does not.
    """
    gold = [_gold(reference) for reference in references]
    given = [parse_meaning(answer) for answer in answers]
    pairs = list(zip(given, gold, strict=True))
    counts = [_counts(one, other) for one, other in pairs]
    form = "slots in any order, lists in any order, values compared without case"
    return {
        "viggo_parsed": mean(
            [meaning is not None for meaning in given], method("loradeck", "share of answers that parse")
        ),
        "viggo_function": mean(
            [one is not None and one.function == other.function for one, other in pairs],
            method("loradeck", "the function's name is the reference's"),
        ),
        "viggo_slot_f1": combined("f1", counts, method("loradeck", f"micro F1 of (slot, value) pairs; {form}")),
        "viggo_slot_precision": combined(
            "ratio",
            [(hits, said) for hits, said, _ in counts],
            method("loradeck", f"micro precision of (slot, value) pairs; {form}"),
        ),
        "viggo_slot_recall": combined(
            "ratio",
            [(hits, true) for hits, _, true in counts],
            method("loradeck", f"micro recall of (slot, value) pairs; {form}"),
        ),
        "viggo_exact": mean(
            [one == other for one, other in pairs], method("loradeck", f"function and all slots equal; {form}")
        ),
    }


def _gold(reference: str) -> Meaning:
    meaning = parse_meaning(reference)
    if meaning is None:
        raise ValueError(f"the reference {reference[:60]!r} is not of the form function(slot[value], …)")
    return meaning


def _counts(given: Meaning | None, gold: Meaning) -> tuple[int, int, int]:
    """Slots that agree, slots given, slots of the reference."""
    said: Slots = given.slots if given else Counter()
    return (said & gold.slots).total(), said.total(), gold.slots.total()


def _value(name: str, text: str) -> tuple[str, ...]:
    parts = text.split(",") if name in LISTS else [text]
    return tuple(sorted(" ".join(part.split()).casefold() for part in parts))
