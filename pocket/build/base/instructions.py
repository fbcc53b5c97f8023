"""Simple generic instructions that teach the chat format, copying and stopping; none is a task of the project."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Turn = tuple[str, str]  # (instruction, reply)

SYSTEMS = (
    "You are a helpful assistant.",
    "Follow the instruction.",
    "Answer briefly.",
    "Read the text and do what is asked.",
    "You work with texts about business and technology.",
    "Reply with the answer only.",
    "You are careful and exact. Use the words of the text.",
    "Do what the user asks and then stop.",
)
_ORDER = ("first", "second", "third", "fourth", "fifth")
_FIELDS = str.split(
    "colour size owner price city weight code age team height origin phone status model year street doctor cause "
    "cost start end aim leader supplier tool reason plan result danger place number period"
)
_ACTIONS = (
    ("lives in {place}", "Where does {name} live?", "Where is the home of {name}?"),
    ("works for {firm}", "Who does {name} work for?", "Which company employs {name}?"),
    ("was born on {date}", "When was {name} born?", "What is the birth date of {name}?"),
    ("paid {money} for a car", "How much did {name} pay?", "What did the car of {name} cost?"),
    ("likes {thing}", "What does {name} like?", "Which things are liked by {name}?"),
    ("lost {thing} in {place2}", "What did {name} lose?", "Which things did {name} lose?"),
    ("left early because of {thing}", "Why did {name} leave early?", "Because of what did {name} leave?"),
    ("wants to visit {place2}", "What place does {name} want to visit?", "Where will {name} go?"),
)


@dataclass(frozen=True)
class Material:
    """What the instructions are made of: single words, invented names, and texts of the corpus."""

    words: Sequence[str]
    names: Callable[[random.Random], str]
    places: Callable[[random.Random], str]
    firms: Callable[[random.Random], str]
    dates: Callable[[random.Random], str]


def _phrase(rng: random.Random, material: Material, low: int = 2, high: int = 9) -> str:
    return " ".join(rng.choice(material.words) for _ in range(rng.randrange(low, high)))


def anything(rng: random.Random, material: Material) -> str:
    """Some words, an invented name, a date or an amount."""
    return rng.choice(
        (
            lambda: _phrase(rng, material),
            lambda: material.names(rng),
            lambda: material.places(rng),
            lambda: material.firms(rng),
            lambda: material.dates(rng),
            lambda: f"{rng.randrange(1, 990) / 10:.1f} million",
        )
    )()


def repeat(rng: random.Random, material: Material) -> Turn:
    """Repeat given words."""
    said = ", ".join(anything(rng, material) for _ in range(rng.randrange(1, 5)))
    form = rng.choice(("Repeat this: {}", "Say exactly: {}", "Copy the following words.\n{}", "Write this again: {}"))
    return form.format(said), said


def pick(rng: random.Random, material: Material) -> Turn:
    """Pick an item of a list by its place, or its neighbour."""
    items = [anything(rng, material) for _ in range(rng.randrange(3, 6))]
    where = rng.randrange(len(items))
    listed = "; ".join(items)
    if where and rng.random() < 0.4:
        return f"List: {listed}\nWhich item comes after {items[where - 1]}?", items[where]
    if rng.random() < 0.2:
        return f"List: {listed}\nWhich item is the last one?", items[-1]
    return f"List: {listed}\nWhich is the {_ORDER[where]} item?", items[where]


def listing(rng: random.Random, material: Material) -> Turn:
    """Turn a comma list into lines."""
    items = [anything(rng, material) for _ in range(rng.randrange(2, 6))]
    return f"List the items, one a line: {', '.join(items)}", "\n".join(f"- {item}" for item in items)


def record_body(rng: random.Random, material: Material) -> tuple[str, list[Turn]]:
    """A small record, and a question with its answer for every field."""
    fields = rng.sample(_FIELDS, rng.randrange(3, 8))
    values = [anything(rng, material) for _ in fields]
    joint, gap = rng.choice(((": ", "\n"), (" = ", "; "), (" is ", ". "), (" - ", ", ")))
    body = gap.join(f"{field}{joint}{value}" for field, value in zip(fields, values, strict=True))
    form = rng.choice(("What is the {}?", "Give the {}.", "Find the {}.", "Tell me the {}."))
    return body, [(form.format(field), value) for field, value in zip(fields, values, strict=True)]


def record(rng: random.Random, material: Material) -> Turn:
    """Look one field up in a small record."""
    body, turns = record_body(rng, material)
    question, value = rng.choice(turns)
    return f"{body}\n{question}" if rng.random() < 0.6 else f"{question}\n{body}", value


def story(rng: random.Random, material: Material) -> tuple[str, list[Turn]]:
    """A few sentences on invented people, and questions with their answers."""
    told, questions = [], []
    for _ in range(rng.randrange(2, 6)):
        name = material.names(rng)
        fact, *asked = rng.choice(_ACTIONS)
        slots = {
            "name": name, "place": material.places(rng), "place2": material.places(rng), "firm": material.firms(rng),
            "date": material.dates(rng), "money": f"{rng.randrange(2, 90)} thousand",
            "thing": _phrase(rng, material, 1, 4),
        }  # fmt: skip
        told.append(f"{name} {fact.format(**slots)}.")
        key = re.findall(r"\{(\w+)\}", fact)[0]
        questions.append((rng.choice(asked).format(name=name), slots[key]))
        if rng.random() < 0.3:
            questions.append((f"Who {fact.format(**slots)}?", name))
    return " ".join(told), questions


def people(rng: random.Random, material: Material) -> Turn:
    """Read a few sentences on invented people and answer one question with a span."""
    text, questions = story(rng, material)
    question, answer = rng.choice(questions)
    form = rng.choice(("Text: {t}\nQuestion: {q}", "{t}\n\n{q}", "Question: {q}\nText: {t}", "Story: {t} {q}"))
    return form.format(t=text, q=question), answer


def parts(text: str) -> list[str]:
    """Sentences of a text."""
    return [part for part in re.split(r"(?<=[.?!])\s+", text.strip()) if part]


def about_text(
    rng: random.Random, text: str, rare: Callable[[str], list[str]], topic: Callable[[str], list[str]] | None = None
) -> Turn:
    """One instruction on a whole text: its topic words, the sentence of a word, a missing end, what follows."""
    sentences = parts(text)
    choice = rng.random()
    if topic is not None and choice < 0.6:
        form = rng.choice(("Which words fit the text?\n{}", "{}\n\nRelated words?", "Text: {}\nName related words."))
        return form.format(text), ", ".join(topic(text))
    if choice < 0.7:
        chosen = rng.choice(sentences)
        word = rng.choice(rare(chosen)[:3] or chosen.split())
        return f"Text: {text}\nWhich sentence holds the word '{word}'?", chosen
    if choice < 0.85:
        words = rng.choice(sentences).split()
        cut = rng.randrange(1, max(2, len(words) - 1))
        start = max(0, cut - rng.randrange(3, 7))
        return f"Text: {text}\nFinish the sentence: {' '.join(words[start:cut])} ...", " ".join(words[cut:])
    cut = rng.randrange(1, len(sentences)) if len(sentences) > 1 else 1
    return f"Continue the text: {' '.join(sentences[:cut])}", " ".join(sentences[cut:]) or sentences[-1]


def draw_turn(rng: random.Random, material: Material) -> Turn:
    """One generic instruction with its reply."""
    return rng.choice((repeat, pick, listing, record, record, people, people, people))(rng, material)
