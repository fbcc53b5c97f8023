"""Sentences and the functional representation of each: `function(slot[value], slot[value])`, as ViGGO writes them."""

import sys
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1] / "instructions"))

from words import COLOURS, DAYS, EVENTS, NAMES, OBJECTS, PLACES, TOPICS

Split = Literal["train", "test"]

SLOTS = {
    "name": NAMES, "object": OBJECTS, "colour": COLOURS, "place": PLACES, "day": DAYS, "event": EVENTS, "topic": TOPICS,
    "price": tuple(str(number) for number in range(2, 100)),
}  # fmt: skip
"""Slot -> its values."""

FORMS: dict[str, dict[Split, tuple[str, ...]]] = {
    "buy": {
        "train": ("{name} bought a {colour} {object} for {price} crowns.", "{name} bought a {object} at the {place}.",
                  "On {day} {name} paid {price} crowns for a {object}.",
                  "At the {place} {name} found a {colour} {object} and took it.",
                  "A {colour} {object} was bought by {name} on {day}."),
        "test": ("{name} gave {price} crowns for a {colour} {object}.",
                 "On {day}, at the {place}, {name} bought a {object}.",
                 "A {object} from the {place} was bought by {name}."),
    },
    "sell": {
        "train": ("{name} sells a {colour} {object} for {price} crowns.", "{name} sells a {object} at the {place}.",
                  "For {price} crowns, you can have the {object} of {name}.",
                  "On {day} {name} will sell the {colour} {object}."),
        "test": ("{name} wants {price} crowns for the {colour} {object}.",
                 "The {object} of {name} is for sale at the {place}.",
                 "This {day} {name} sells a {object}."),
    },
    "invite": {
        "train": ("{name} is invited to the {event} on {day}.", "Please come to the {event} at the {place}, {name}.",
                  "There is a {event} on {day}, and {name} should come.",
                  "We would like to see {name} at the {event} in the {place} on {day}."),
        "test": ("{name}, you are welcome at our {event} on {day}.",
                 "The {event} is at the {place}, {name}, so please come.",
                 "Will you join the {event} on {day}, {name}?"),
    },
    "lose": {
        "train": ("{name} lost a {colour} {object} at the {place}.", "On {day} {name} lost the {object}.",
                  "{name} left a {object} in the {place} and cannot find it.",
                  "The {colour} {object} of {name} is gone since {day}."),
        "test": ("{name} cannot find the {colour} {object}.",
                 "A {object} was lost by {name} near the {place} on {day}.",
                 "Since {day} the {object} of {name} is missing."),
    },
    "ask_price": {
        "train": ("How much is the {colour} {object}?", "What does a {object} cost at the {place}?",
                  "{name} asks for the price of the {object}.", "Tell {name} what the {colour} {object} costs."),
        "test": ("What is the price of the {colour} {object}?",
                 "{name} wants to know what a {object} costs at the {place}."),
    },
    "like": {
        "train": ("{name} likes the {colour} {object}.", "{name} thinks that the {object} is good.",
                  "The {place} is a place that {name} likes.", "{name} enjoyed the {event} on {day}."),
        "test": ("The {colour} {object} pleases {name}.", "{name} says that the {event} of {day} was nice.",
                 "{name} is fond of the {place}."),
    },
    "decide": {
        "train": ("The team accepted the plan of {name} for the {topic} on {day}.",
                  "On {day} the team said yes to the {topic}.", "The plan for the {topic} by {name} was accepted."),
        "test": ("On {day} the team agreed to what {name} wants for the {topic}.",
                 "The {topic} that {name} planned was agreed to."),
    },
    "cancel": {
        "train": ("The {event} on {day} is cancelled.", "There will be no {event} at the {place}.",
                  "{name} cannot come, so the {event} on {day} is off.", "The {place} is closed on {day}."),
        "test": ("The {event} of {day} will not take place.", "Without {name} there is no {event}.",
                 "On {day} nobody opens the {place}."),
    },
}  # fmt: skip
"""Function -> its sentences by split."""
