"""What the model is asked, after Surikova and Sabidaeva: one class at a time, a short and a long answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Answer = TypeVar("Answer")
Messages = list[dict[str, str]]

_CLASSIFY = """You decide whether a text is about a theme.

Reply with the single character 1 if the theme is present in the text, and with 0 if it is not. Write nothing else.

Text: New batteries store the power of a windy night for the next day.
Theme: EnergyTech
1

Text: This season's coats are long and plain.
Theme: AI
0"""
_SHORT = """You are given a question and an answer to it from a forum. Write a short answer with its main point.

Be clear and direct, in one to three sentences, and use nothing that the given answer does not say. Write the short \
answer only.

Question: How do I get better at chess?
Forum answer: Play slow games and study your losses. Puzzles help too, ten minutes a day. Opening books can wait.
You get better by playing slow games, reviewing your losses and solving a few puzzles every day."""
_LONG = """You are given a question and an answer to it from a forum. Write a detailed answer that develops its ideas.

Explain them, give examples and the context that a reader needs, and contradict nothing in the given answer. Write the \
detailed answer only.

Question: How do I get better at chess?
Forum answer: Play slow games and study your losses. Puzzles help too, ten minutes a day. Opening books can wait.
Steady practice matters more than memorised theory. Slow games leave time to look for plans and threats, which fast \
games do not. After a loss, find the move where the game turned, ask what you overlooked, and note it: the same \
mistakes come back. Puzzles train the eye for forks, pins and mating nets, and ten minutes a day are worth more than \
two hours once a week. Opening books pay off later, when games are no longer decided by oversights."""
_LABELS = re.compile(r"^(?:short|long|detailed)?\s*answer\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Question(Generic[Answer]):
    """Messages to send, and how a reply becomes an answer: None is a malformed reply. `max_tokens` bounds the reply."""

    messages: Messages
    parse: Callable[[str], Answer | None]
    max_tokens: int


def is_about(text: str, theme: str) -> Question[bool]:
    """Whether `text` has `theme`: one binary question, so that a text may turn out to have none or several."""
    return Question(_messages(_CLASSIFY, f"Text: {text}\nTheme: {theme}"), _binary, 4)


def short_answer(question: str, answer: str) -> Question[str]:
    """The point of a forum's answer in a few sentences."""
    return Question(_messages(_SHORT, f"Question: {question}\nForum answer: {answer}"), _text, 200)


def long_answer(question: str, answer: str) -> Question[str]:
    """A forum's answer with explanations and examples."""
    return Question(_messages(_LONG, f"Question: {question}\nForum answer: {answer}"), _text, 1000)


def _messages(system: str, user: str) -> Messages:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _binary(reply: str) -> bool | None:
    return {"1": True, "0": False}.get(reply.strip().strip(".\"'"))


def _text(reply: str) -> str | None:
    found = _LABELS.sub("", reply.strip()).strip().strip('"').strip()
    return found if len(found.split()) >= 2 else None
