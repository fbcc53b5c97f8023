"""Draws the words of one instruction, and writes its answer: one function per category and kind."""

import random
from collections.abc import Callable

import words as w

Slots = dict[str, str]
Draw = tuple[Slots, str]
"""Words for the wording, and the answer."""

_FUNCTIONS = (
    ("adds", "to", "add", "+"),
    ("subtracts", "from", "subtract", "-"),
    ("multiplies", "with", "multiply", "*"),
)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fact(pairs: tuple[tuple[str, str], ...], form: str) -> Callable[[random.Random], Draw]:
    def draw(rng: random.Random) -> Draw:
        thing, value = rng.choice(pairs)
        return {"thing": thing}, _capital(form.format(thing=thing, value=value))

    return draw


def _scene(rng: random.Random) -> Slots:
    """People, a thing, a place and a time; each wording takes what it needs."""
    name, second, third = rng.sample(w.NAMES, 3)
    return {
        "name": name, "second": second, "third": third, "object": rng.choice(w.OBJECTS),
        "n": str(rng.randrange(2, 100)), "colour": rng.choice(w.COLOURS), "place": rng.choice(w.PLACES),
        "day": rng.choice(w.DAYS), "event": rng.choice(w.EVENTS), "topic": rng.choice(w.TOPICS),
    }  # fmt: skip


def _from_scene(form: str) -> Callable[[random.Random], Draw]:
    def draw(rng: random.Random) -> Draw:
        slots = _scene(rng)
        return slots, form.format(**slots)

    return draw


def _bought(rng: random.Random) -> Draw:
    slots = _scene(rng)
    asked, answer = rng.choice(
        (
            ("Who bought the {object}?", "{name} bought the {object}."),
            ("What did {name} buy?", "{name} bought a {object}."),
            ("Where did {name} buy the {object}?", "At the {place}."),
            ("On which day was it?", "On {day}."),
            ("Which colour has the {object}?", "The {object} is {colour}."),
        )
    )
    return slots | {"question": asked.format(**slots)}, answer.format(**slots)


def _rewrite(form: str) -> Callable[[random.Random], Draw]:
    def draw(rng: random.Random) -> Draw:
        verb, past = rng.choice(w.VERBS)
        slots = _scene(rng) | {"verb": verb, "Verb": _capital(verb), "past": past}
        return slots, form.format(**slots)

    return draw


def _things(rng: random.Random) -> Draw:
    room, number = rng.choice(list(w.FOUND_IN)), rng.randrange(len(w.NUMBERS))
    chosen = w.FOUND_IN[room][: number + 2]
    return {"room": room, "number": w.NUMBERS[number]}, "\n".join(f"- {thing}" for thing in chosen)


def _opinion(rng: random.Random) -> Draw:
    good = rng.random() < 0.5
    return _scene(rng) | {"quality": rng.choice(w.GOOD if good else w.BAD)}, "Positive" if good else "Negative"


def _kind(rng: random.Random) -> Draw:
    thing, kind = rng.choice(w.KIND_OF)
    return _scene(rng) | {"thing": thing}, f"{'An' if kind == 'animal' else 'A'} {kind}"


def _arithmetic(sign: str) -> Callable[[random.Random], Draw]:
    def draw(rng: random.Random) -> Draw:
        a, b = rng.randrange(10, 40), rng.randrange(1, 10)
        return {"a": str(a), "b": str(b)}, f"{a} {sign} {b} = {a + b if sign == '+' else a - b}"

    return draw


def _function(rng: random.Random) -> Draw:
    adds, to, name, sign = rng.choice(_FUNCTIONS)
    number = str(rng.randrange(2, 60))
    return {"adds": adds, "b": number, "to": to}, f"def {name}(x):\n    return x {sign} {number}"


def _loop(rng: random.Random) -> Draw:
    thing, number = rng.choice(w.OBJECTS), str(rng.randrange(2, 20))
    return {"thing": thing, "b": number}, f'for i in range({number}):\n    print("{thing}")'


ANSWERS: dict[tuple[str, str], Callable[[random.Random], Draw]] = {
    ("open qa", "colour"): _fact(w.COLOUR_OF, "{thing} is {value}."),
    ("open qa", "home"): _fact(w.HOME_OF, "{thing} lives in {value}."),
    ("open qa", "opposite"): _fact(w.OPPOSITE_OF, "the opposite of {thing} is {value}."),
    ("open qa", "maker"): _fact(w.MAKER_OF, "{value} makes {thing}."),
    ("closed qa", "bought"): _bought,
    ("extract", "price"): _from_scene("Price: {n} crowns"),
    ("extract", "names"): _from_scene("Names: {name}, {second}, {third}"),
    ("extract", "day"): _from_scene("Day: {day}"),
    ("summarization", "shopping"): _from_scene("{name} bought a {colour} {object} for {n} crowns."),
    ("summarization", "plan"): _from_scene("On {day} the team accepted the plan of {name} for the {topic}."),
    ("rewrite", "past"): _rewrite("{name} {past} the {object}."),
    ("rewrite", "question"): _rewrite("Can {name} {verb} the {object}?"),
    ("rewrite", "polite"): _rewrite("Could you please {verb} the {object}?"),
    ("generation", "invitation"): _from_scene(
        "Dear {name}, please come to the {event} on {day}. I look forward to it."
    ),
    ("generation", "thanks"): _from_scene("Dear {name}, thank you for the {object}. It is very useful."),
    ("generation", "sentence"): _from_scene("{name} takes the {object} to the {place}."),
    ("brainstorming", "things"): _things,
    ("classification", "opinion"): _opinion,
    ("classification", "kind"): _kind,
    ("others", "sum"): _arithmetic("+"),
    ("others", "difference"): _arithmetic("-"),
    ("others", "function"): _function,
    ("others", "loop"): _loop,
}
