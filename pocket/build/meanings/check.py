"""Measures the set of sentences and meanings and fails when a promise of its data card is broken."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parent))

from forms import FORMS, SLOTS

Row = dict[str, str]
_VALUES = sorted({value for values in SLOTS.values() for value in values}, key=lambda value: (-len(value), value))
_FILLED = re.compile(r"\b(?:" + "|".join(map(re.escape, _VALUES)) + r")\b")
_MEANING = re.compile(r"(\w+)\(((?:\w+\[[^\]]+\](?:, )?)+)\)")


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def form(sentence: str) -> str:
    """A sentence without what it was filled with."""
    return _FILLED.sub("@", sentence)


def told(row: Row) -> bool:
    """Whether the representation is well formed, and every value in it stands in the sentence."""
    found = _MEANING.fullmatch(row["meaning"])
    if found is None or found[1] not in FORMS:
        return False
    pairs = re.findall(r"(\w+)\[([^\]]+)\]", found[2])
    return all(value in SLOTS[slot] and re.search(rf"\b{value}\b", row["sentence"]) for slot, value in pairs)


def measure(train: list[Row], test: list[Row], familiar: Sequence[Row] = ()) -> dict[str, object]:
    """All figures of the data card."""
    every, known = [*train, *test, *familiar], {form(row["sentence"]) for row in train}
    slots = [row["meaning"].count("[") for row in every]
    return {
        "rows": {"train": len(train), "test": len(test), "familiar": len(familiar)},
        "functions": dict(sorted(Counter(row["meaning"].partition("(")[0] for row in test).items())),
        "duplicate_sentences": len(every) - len({row["sentence"] for row in every}),
        "shared_forms": len(known & {form(row["sentence"]) for row in test}),
        "unfamiliar_forms": len({form(row["sentence"]) for row in familiar} - known),
        "not_told": sum(not told(row) for row in every),
        "slots": {"min": min(slots), "mean": round(mean(slots), 2), "max": max(slots)},
        "sentence_words": round(mean(len(row["sentence"].split()) for row in every), 1),
    }


def violations(figures: dict[str, object]) -> list[str]:
    """Broken promises, in words."""
    broken = []
    rows = figures["rows"]
    if not isinstance(rows, dict) or rows["train"] < 1600 or rows["test"] < 200:
        broken.append("fewer than 1600 train or 200 test rows")
    for name in ("duplicate_sentences", "shared_forms", "unfamiliar_forms", "not_told"):
        if figures[name] != 0:
            broken.append(f"{name} is {figures[name]}, not 0")
    return broken


def main() -> int:
    """Print the figures as JSON; exit code 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with train.jsonl, test.jsonl and familiar.jsonl")
    folder = parser.parse_args().folder
    figures = measure(*(read_rows(folder / f"{split}.jsonl") for split in ("train", "test", "familiar")))
    print(json.dumps(figures, indent=1))
    broken = violations(figures)
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
