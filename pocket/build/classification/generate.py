"""Generate the classification set: nine classes of synthetic media fragments, split by template family.

python generate.py                                            # train.jsonl and test.jsonl
python generate.py --unlabelled 60000 --out FILE --seed 7     # extra text of the training families, no labels
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from grammar import LABELS, NAMES, OWN_PHRASES, Frame, Text, compile_frame, read_sections

OUTPUT = Path(__file__).resolve().parents[2] / "loradeck_pocket" / "data" / "classification"
TRAIN_PER_CLASS, TEST_PER_CLASS = 300, 60
TRAIN_SEED, TEST_SEED = 11, 12
MIN_WORDS, MAX_WORDS = 40, 120
LEAD_WEIGHTS = (30, 40, 30)  # a sentence of the class, a lead of the family, a lead that starts from the other class
BODY_WEIGHTS = (40, 60)  # one or two further sentences on the class
ASIDE_WEIGHTS = (5, 25, 70)  # none, one or two sentences on the other class
NEAR_SHARE = 0.6  # how often the other class is one of the near ones
FILLER_SHARE = 0.35  # how often a sentence without a topic is added
SCIENCE, TELECOM, AI, FINTECH, DIGITAL, EDTECH, BUSINESS, ENERGY, MEDTECH = LABELS
NEAR = {
    SCIENCE: (BUSINESS, DIGITAL, AI, ENERGY, MEDTECH),
    TELECOM: (DIGITAL, BUSINESS, FINTECH, ENERGY),
    AI: (SCIENCE, DIGITAL, MEDTECH, EDTECH, FINTECH),
    FINTECH: (BUSINESS, AI, DIGITAL, TELECOM),
    DIGITAL: (BUSINESS, SCIENCE, AI, MEDTECH),
    EDTECH: (AI, DIGITAL, SCIENCE, TELECOM),
    BUSINESS: (DIGITAL, SCIENCE, FINTECH, MEDTECH, ENERGY),
    ENERGY: (SCIENCE, BUSINESS, TELECOM, AI),
    MEDTECH: (AI, DIGITAL, BUSINESS, SCIENCE),
}


class Split:
    """The frames of one side: families of shared frames by role, and frames of each class."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.families: dict[str, dict[str, list[Frame]]] = {}
        for family, lines in read_sections(f"{name}_shared.txt").items():
            roles = self.families.setdefault(family, {})
            for line in lines:
                roles.setdefault(line[0], []).append(compile_frame(line[2:]))
        self.of_class = {
            label: [compile_frame(line) for line in lines]
            for label, lines in read_sections(f"{name}_class.txt").items()
        }

    def text(self, rng: random.Random, label: str, family: str) -> str | None:
        """One fragment whose lead, body and conclusion treat ``label``; None when its length is out of bounds or
        neither lead nor conclusion names a phrase that belongs to this class alone (the theme would be undecidable)."""
        roles = self.families[family]
        other = rng.choice(NEAR[label] if rng.random() < NEAR_SHARE else [x for x in LABELS if x != label])
        third = rng.choice([x for x in LABELS if x not in (label, other)])
        own, foreign = rng.sample(self.of_class[label], 3), rng.sample(self.of_class[other], 2)
        shared_body, shared_aside = rng.sample(roles["B"], 2), rng.sample(roles["A"], 2)
        lead = rng.choices((own.pop(), rng.choice(roles["L"]), rng.choice(roles["H"])), LEAD_WEIGHTS)[0]
        middle: list[tuple[Frame, str, str]] = []
        for _ in range(rng.choices((1, 2), BODY_WEIGHTS)[0]):
            middle.append(((own if rng.random() < 0.5 else shared_body).pop(), label, other))
        for _ in range(rng.choices((0, 1, 2), ASIDE_WEIGHTS)[0]):
            middle.append((foreign.pop(), other, label) if rng.random() < 0.5 else (shared_aside.pop(), other, third))
        rng.shuffle(middle)
        state = Text(rng)
        sentences = [state.sentence(lead, label, other)]
        sentences += [self.opened(rng, state.sentence(*item), item[1] != label) for item in middle]
        if rng.random() < FILLER_SHARE:
            filler = state.sentence(rng.choice(roles["F"]), label, other)
            sentences.insert(rng.randrange(1, len(sentences) + 1), filler)
        sentences.append(state.sentence(rng.choice(roles["C"]), label, other))
        ends = f"{sentences[0]} {sentences[-1]}"
        if not any(phrase in ends for phrase in state.used & OWN_PHRASES[label]):
            return None
        text = " ".join(sentences)
        return text if MIN_WORDS <= len(text.split()) <= MAX_WORDS else None

    def opened(self, rng: random.Random, sentence: str, aside: bool) -> str:
        """The sentence, now and then behind an opening such as "In addition,", when it starts with an article."""
        article, _, rest = sentence.partition(" ")
        if article not in ("The", "A", "An") or rng.random() > (0.5 if aside else 0.25):
            return sentence
        opening = rng.choice(NAMES[f"{'aside' if aside else 'link'} {self.name}"])
        return f"{opening} {article.lower()} {rest}"

    def rows(self, seed: int) -> Iterator[dict[str, str]]:
        """Endless distinct rows, the classes and families in turn; the same for the same seed."""
        rng = random.Random(seed)
        families = list(self.families)
        seen: set[str] = set()
        number = 0
        while True:
            label = LABELS[number % len(LABELS)]
            family = families[number // len(LABELS) % len(families)]
            text = self.text(rng, label, family)
            if text is not None and text not in seen:
                seen.add(text)
                number += 1
                yield {"text": text, "label": label, "family": family}


def unlabelled(count: int, seed: int) -> Iterator[str]:
    """``count`` distinct fragments of the training families; seeds other than the training set's give fresh text."""
    rows = Split("train").rows(seed)
    return (next(rows)["text"] for _ in range(count))


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as JSON lines, UTF-8."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def build(folder: Path) -> None:
    """Write train.jsonl and test.jsonl, each shuffled with its own seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed, per_class in (("train", TRAIN_SEED, TRAIN_PER_CLASS), ("test", TEST_SEED, TEST_PER_CLASS)):
        source = Split(name).rows(seed)
        rows = [next(source) for _ in range(per_class * len(LABELS))]
        random.Random(seed).shuffle(rows)
        write_jsonl(folder / f"{name}.jsonl", rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unlabelled", type=int, metavar="COUNT", help="write COUNT rows without labels")
    parser.add_argument("--out", type=Path, help="file for --unlabelled; else a folder (default: the package's)")
    parser.add_argument("--seed", type=int, default=1001, help="seed of --unlabelled, not 11 or 12 (default 1001)")
    arguments = parser.parse_args()
    if arguments.unlabelled is None:
        build(arguments.out or OUTPUT)
        return
    if arguments.out is None or arguments.unlabelled < 1 or arguments.seed in (TRAIN_SEED, TEST_SEED):
        parser.error("--unlabelled needs a positive COUNT, --out FILE and a --seed other than 11 and 12")
    with arguments.out.open("w", encoding="utf-8") as file:
        for text in unlabelled(arguments.unlabelled, arguments.seed):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
