"""Turns a drawn project into a context, a question, a short answer and a long answer."""

import random
from dataclasses import dataclass
from types import ModuleType

import phrases_test
import phrases_train
from sectors import TEST_SECTORS, TRAIN_SECTORS, Sector
from slots import Project, Split, draw_project

FACTS = ("launch", "goal", "reason", "lead", "budget", "partner", "method", "scope", "risk", "result", "next")
SHORT = {
    "launch": "on {date}",
    "owner": "{org}",
    "goal": "to {goal_a} and to {goal_b}",
    "reason": "because {reason}",
    "lead": "{lead}, {role}",
    "budget": "{budget}",
    "partner": "{partner}",
    "method": "{head} that {action}",
    "scope": "{scope}",
    "risk": "{risk}",
    "result": "{result}",
    "next": "to {next} in {when}",
}


@dataclass(frozen=True)
class Row:
    """One example; `kind` names the question type and `sector` the subject."""

    context: str
    question: str
    short_answer: str
    long_answer: str
    kind: str
    sector: str


def phrases(split: Split) -> ModuleType:
    """The sentence families of a split."""
    return phrases_train if split == "train" else phrases_test


def sectors(split: Split) -> tuple[Sector, ...]:
    """The sectors of a split."""
    return TRAIN_SECTORS if split == "train" else TEST_SECTORS


def sentence(clause: str) -> str:
    """Capitalise a clause and end it with a full stop."""
    text = clause[0].upper() + clause[1:]
    return text if text.endswith(".") else text + "."


def tell(rng: random.Random, project: Project, split: Split, count: int) -> tuple[str, list[str]]:
    """A context of `count` facts beginning with the launch; returns the text and the facts in order."""
    others = [fact for fact in FACTS if fact != "launch"]
    facts = ["launch", *rng.sample(others, count - 1)]
    told = [sentence(rng.choice(phrases(split).TELL[fact]).format(**project.slots)) for fact in facts]
    return " ".join(told), facts


def restate(rng: random.Random, project: Project, split: Split, fact: str) -> str:
    """One fact in other words, as a clause in lower case without a full stop."""
    return str(rng.choice(phrases(split).RESTATE["launch" if fact == "owner" else fact]).format(**project.slots))


def short_answer(project: Project, kind: str) -> str:
    """The span (or two joined spans) of the context that answers a question of this kind."""
    return sentence(SHORT[kind].format(**project.slots))


def draw_row(rng: random.Random, split: Split) -> Row:
    """Draw one example of the split; word counts are kept inside the limits that the data card states."""
    wording = phrases(split)
    while True:
        project = draw_project(rng, rng.choice(sectors(split)), split)
        context, facts = tell(rng, project, split, rng.randrange(5, 8))
        kind = rng.choice([*facts, "owner"])
        question = str(rng.choice(wording.ASK[kind]).format(**project.slots))
        fact = "launch" if kind == "owner" else kind
        support = rng.choice([other for other in facts if other != fact])
        link = str(rng.choice(wording.LINK).format(clause=restate(rng, project, split, support)))
        main = sentence(restate(rng, project, split, fact))
        long_answer = " ".join((main, link, str(rng.choice(wording.EXPLAIN[kind]))))
        row = Row(context, question, short_answer(project, kind), long_answer, kind, project.sector)
        if inside_limits(row):
            return row


def inside_limits(row: Row) -> bool:
    """Context 40 to 110 words, short answer 2 to 16, long answer 30 to 80."""
    return (
        40 <= len(row.context.split()) <= 110
        and 2 <= len(row.short_answer.split()) <= 16
        and 30 <= len(row.long_answer.split()) <= 80
    )
