"""The offline grammar: reads the frame and phrase files and expands one frame into one sentence.

Frame syntax: ``{t}`` draws a topical phrase of the text's class (``{d.t}`` of the other class), ``{u:C}`` capitalises,
``{x|y}`` chooses a wording, ``{is/are}`` agrees with the phrase drawn before it, upper-case slots are neutral values.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

LABELS = (
    "Science, Technology and Innovation",
    "Telecom",
    "AI",
    "FinTech",
    "Digital Transformation",
    "EdTech",
    "Business",
    "EnergyTech",
    "MedTech",
)
LABEL_OF_CODE = dict(zip("STAFDEBNM", LABELS, strict=True))
FOLDER = Path(__file__).resolve().parent / "frames"
SINGULAR_HEADS = {"logistics", "physics", "mathematics", "analytics", "ethics", "bias"}
ARTICLE = re.compile(r"\b([Aa]) (?=[AEIOUaeiou])(?!uni|use|usu|one|eu)")
SMALL_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")

Part = tuple[str, ...]
Frame = tuple[Part, ...]


def read_sections(name: str) -> dict[str, list[str]]:
    """Lines of a grammar file by its ``[section]`` headings; blank lines and ``#`` comments are dropped."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for raw in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1], [])
        elif line and not line.startswith("#"):
            current.append(line)
    return sections


def compile_frame(line: str) -> Frame:
    """Parse a frame into parts: ("text", s), ("choice", a, b...), ("slot", name, owner, capital)."""
    parts: list[Part] = []
    for index, piece in enumerate(re.split(r"\{([^}]*)\}", line)):
        if index % 2 == 0:
            if piece:
                parts.append(("text", piece))
        elif "|" in piece or "/" in piece:
            parts.append(("choice", *piece.split("|")))
        else:
            key, _, flag = piece.partition(":")
            owner, _, name = key.rpartition(".")
            parts.append(("slot", name, owner, flag))
    return tuple(parts)


def is_plural(phrase: str) -> bool:
    """Whether a noun phrase takes a plural verb, judged by the last letter of its head noun."""
    head = re.split(r" (?:of|for|to|in|from|by|with|at) ", phrase, maxsplit=1)[0].split()[-1]
    return head.endswith("s") and not head.endswith("ss") and head not in SINGULAR_HEADS


def split_list(line: str) -> list[str]:
    """The items of a line whose items are parted by semicolons."""
    return [item.strip() for item in line.split(";") if item.strip()]


def own_phrases() -> dict[str, set[str]]:
    """Label -> the phrases of phrases.txt, which are written for that class."""
    return {
        label: {phrase for line in lines for phrase in split_list(line[2:])}
        for label, lines in read_sections("phrases.txt").items()
    }


def load_phrases() -> dict[str, dict[str, list[str]]]:
    """Topical phrases: label -> kind (t, p, v, m, a, u, j) -> phrases, those of overlap.txt among them."""
    table: dict[str, dict[str, list[str]]] = {}
    for label, lines in read_sections("phrases.txt").items():
        table[label] = {line[0]: split_list(line[2:]) for line in lines}
    for line in read_sections("overlap.txt")["overlap"]:
        kind, codes, phrase = line.split(" ", 2)
        for code in codes:
            table[LABEL_OF_CODE[code]][kind].append(phrase)
    return table


PHRASES = load_phrases()
OWN_PHRASES = own_phrases()
NAMES = {key: split_list(" ".join(lines)) for key, lines in read_sections("names.txt").items()}


@dataclass
class Text:
    """The drawing state of one text: its random source, its people and organisations, the phrases already used."""

    rng: random.Random
    used: set[str] = field(default_factory=set)
    fixed: dict[str, str] = field(default_factory=dict)

    def pick(self, items: list[str] | tuple[str, ...]) -> str:
        """One item, uniformly."""
        return items[int(self.rng.random() * len(items))]

    def topical(self, label: str, kind: str) -> str:
        """A phrase of the class, preferring one that this text has not used."""
        items = PHRASES[label][kind]
        phrase = self.pick(items)
        for _ in range(4):
            if phrase not in self.used:
                break
            phrase = self.pick(items)
        self.used.add(phrase)
        return phrase

    def neutral(self, name: str) -> str:
        """A value for an upper-case slot; organisation, person and city stay the same within a text."""
        if name in ("PERSON", "LAST", "HE"):
            return self._person(name)
        if name in self.fixed:
            return self.fixed[name]
        value = self._draw(name)
        if name in ("ORG", "ORG2", "CITY"):
            self.fixed[name] = value
        return value

    def _person(self, name: str) -> str:
        """The person of the text: the full name when first mentioned, later as asked."""
        known = "PERSON" in self.fixed
        if not known:
            pronoun = self.pick(("she", "he"))
            last = self.pick(NAMES["last"])
            first = self.pick(NAMES["women" if pronoun == "she" else "men"])
            self.fixed.update(PERSON=f"{first} {last}", LAST=last, HE=pronoun)
        return self.fixed[name if known else "PERSON"]

    def _draw(self, name: str) -> str:
        rng = self.rng
        if name in ("ORG", "ORG2"):
            stem = self.pick(NAMES["stem"])
            return stem if rng.random() < 0.4 else f"{stem} {self.pick(NAMES['suffix'])}"
        if name == "N":
            return self.pick(SMALL_NUMBERS) if rng.random() < 0.7 else str(int(13 + rng.random() * 77))
        if name == "PCT":
            return f"{int(3 + rng.random() * 84)} percent"
        if name == "BIG":
            return f"{int(1 + rng.random() * 89)},{int(rng.random() * 10)}00"
        if name == "MON":
            return f"{int(2 + rng.random() * 95)} million {self.pick(('dollars', 'euros'))}"
        if name == "YEAR":
            return str(int(2018 + rng.random() * 16))
        if name == "QUARTER":
            return self.pick(QUARTERS)
        if name == "DAY":
            return self.pick(DAYS)
        return self.pick(NAMES[name.lower()])

    def sentence(self, frame: Frame, label: str, other: str) -> str:
        """Expand a frame for a class; ``{d.…}`` slots draw from ``other``."""
        out: list[str] = []
        last = ""
        for part in frame:
            kind = part[0]
            if kind == "text":
                out.append(part[1])
            elif kind == "choice":
                singular, _, plural = self.pick(part[1:]).partition("/")
                out.append(plural if plural and is_plural(last) else singular)
            else:
                _, name, owner, flag = part
                if len(name) == 1 and name.islower():
                    value = last = self.topical(other if owner else label, name)
                else:
                    value = self.neutral(name.upper())
                out.append(value[0].upper() + value[1:] if flag else value)
        text = ARTICLE.sub(r"\1n ", "".join(out))
        return text[0].upper() + text[1:]
