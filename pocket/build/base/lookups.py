"""Conversations that look several things up in one text: the instructions that teach copying from a prompt fastest.

Names are free combinations of syllables, too many to be known by heart, so that only reading the text helps.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "qa"))

from chat import render
from grammar import restate, sectors, sentence, tell
from instructions import SYSTEMS, Material, Turn, record_body, story
from slots import Project, draw_project

_ONSETS = ("b", "br", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "qu", "r", "s", "st", "t", "tr", "v", "w", "z")
_RHYMES = ("a", "e", "i", "o", "u", "ai", "an", "ar", "el", "en", "er", "ick", "in", "ol", "on", "or", "um", "us", "y")
_ENDS = ("", "", "n", "r", "s", "x", "ld", "nd", "th", "sk")
_FIRM_KINDS = ("Systems", "Labs", "Networks", "Software", "Engineering", "Group")


def free_name(rng: random.Random) -> str:
    """One capitalised word of two or three syllables."""
    syllables = "".join(rng.choice(_ONSETS) + rng.choice(_RHYMES) for _ in range(rng.randrange(2, 4)))
    return (syllables + rng.choice(_ENDS)).capitalize()


def free_material(stuff: Material) -> Material:
    """The same words and dates, with free names of people, places and companies."""
    return replace(
        stuff,
        names=lambda rng: f"{free_name(rng)} {free_name(rng)}",
        places=free_name,
        firms=lambda rng: f"{free_name(rng)} {rng.choice(_FIRM_KINDS)}",
    )


def free_project(rng: random.Random) -> Project:
    """A project of the training side whose names are free."""
    project = draw_project(rng, rng.choice(sectors("train")), "train")
    first, _, rest = project.slots["prog"].partition(" ")
    name, place = free_name(rng), free_name(rng)
    organisation = rng.choice(next(s for s in sectors("train") if s.key == project.sector).organisations)
    slots = project.slots | {
        "prog": f"{rng.choice((first, name))} {rest}",
        "org": organisation.format(place=place),
        "lead": f"{free_name(rng)} {free_name(rng)}",
        "partner": f"{free_name(rng)} {rng.choice(_FIRM_KINDS)}",
    }
    return Project(project.sector, slots)


def open_end(rng: random.Random, slots: dict[str, str], said: str) -> Turn:
    """A restatement cut where its fact starts: beginning and rest."""
    cuts = [said.find(value) for key, value in slots.items() if key not in ("org", "prog")]
    cuts = [cut for cut in cuts if cut > 8]
    if not cuts:
        words = said.split()
        cut = rng.randrange(2, max(3, len(words) - 1))
        return " ".join(words[:cut]), " ".join(words[cut:])
    return said[: min(cuts)].strip(), said[min(cuts) :]


def report_turns(rng: random.Random) -> tuple[str, list[Turn]]:
    """A report of the QA grammar's training side, and several restatements of its facts to complete."""
    project = free_project(rng)
    text, facts = tell(rng, project, "train", rng.randrange(3, 8))
    turns = []
    for fact in facts:
        begun, rest = open_end(rng, project.slots, sentence(restate(rng, project, "train", fact)))
        turns.append((f"Complete with the words of the text: {begun} ...", rest))
    return text, turns


def lookups(count: int, rng: random.Random, stuff: Material) -> Iterator[str]:
    """Chats of one text and up to five look-ups in it, the text in the first turn."""
    free = free_material(stuff)
    for _ in range(count):
        draw = rng.random()
        if draw < 0.55:
            text, turns = report_turns(rng)
        elif draw < 0.8:
            text, turns = story(rng, free)
        else:
            text, turns = record_body(rng, free)
        rng.shuffle(turns)
        messages: list[tuple[str, str]] = [("system", rng.choice(SYSTEMS))]
        for number, (question, answer) in enumerate(turns[:5]):
            form = rng.choice(("Text: {t}\n{q}", "{t}\n{q}", "{q}\n{t}")) if number == 0 else "{q}"
            messages += [("user", form.format(t=text, q=question)), ("assistant", answer)]
        yield render(messages)
