"""The sources of the pre-training corpus, each a stream of documents; test rows are removed later, in corpus.py."""

import bz2
import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "qa"))
sys.path.insert(0, str(Path(__file__).parents[1] / "arithmetic"))

from chat import render
from grammar import restate, sectors, sentence, tell
from instructions import SYSTEMS, Material, about_text, anything, draw_turn
from lookups import open_end
from problems import draw as draw_problem
from slots import MONTHS, draw_project, firm, person, place

STEPS = ("Solve the problem.", "Think step by step.", "You solve word problems.", "Work out the answer.")
_SQL = ("Write SQL for the question.", "Turn the question into a query.", "You write SQL.")


def conversation(rng: random.Random, user: str, assistant: str, systems: Sequence[str] = SYSTEMS) -> str:
    """One chat document; its system turn drawn from `systems`."""
    return render((("system", rng.choice(systems)), ("user", user), ("assistant", assistant)))


def rarity(texts: Sequence[str]) -> Callable[[str], list[str]]:
    """A function giving a text's words, rarest in `texts` first (document frequency), each once, long words only."""
    seen = Counter(word for text in texts for word in set(re.findall(r"[A-Za-z][a-z]{3,}", text)))

    def rare(text: str) -> list[str]:
        words = dict.fromkeys(re.findall(r"[A-Za-z][a-z]{3,}", text))
        # Words seen once are mostly invented names, which say nothing about the subject.
        return sorted(words, key=lambda word: math.log(seen[word] + 1) + (9 if seen[word] < 5 else 0))

    return rare


def material(texts: Sequence[str]) -> Material:
    """Words of the texts, and the training side of the invented names."""
    words = sorted({word for text in texts[:20_000] for word in re.findall(r"[A-Za-z][a-z]{2,}", text)})
    return Material(
        words=words,
        names=lambda rng: person(rng, "train"),
        places=lambda rng: place(rng, "train"),
        firms=lambda rng: firm(rng, "train"),
        dates=lambda rng: f"{rng.randrange(1, 29)} {rng.choice(MONTHS)} {rng.randrange(1990, 2026)}",
    )


def fragments(
    texts: Sequence[str], rng: random.Random, rare: Callable[[str], list[str]], topic: Callable[[str], list[str]]
) -> Iterator[str]:
    """Unlabelled media fragments: some as they are, some under an instruction that needs no label."""
    for text in texts:
        if rng.random() < 0.4:
            yield text
        else:
            yield conversation(rng, *about_text(rng, text, rare, topic))


def reports(count: int, rng: random.Random, rare: Callable[[str], list[str]]) -> Iterator[str]:
    """Contexts of the QA grammar's training side with fresh slots, plain, restated, or with a sentence to finish."""
    for _ in range(count):
        project = draw_project(rng, rng.choice(sectors("train")), "train")
        text, facts = tell(rng, project, "train", rng.randrange(3, 8))
        draw = rng.random()
        said = [sentence(restate(rng, project, "train", fact)) for fact in rng.sample(facts, min(3, len(facts)))]
        if draw < 0.25:
            yield f"{text}\nIn other words: {' '.join(said)}"
        elif draw < 0.4:
            yield conversation(rng, *about_text(rng, text, rare))
        elif draw < 0.55:
            yield conversation(rng, f"Text: {text}\nSay {len(said)} of its facts in other words.", " ".join(said))
        else:
            prompt, rest = open_end(rng, project.slots, said[0])
            order = "Text: {text}\n{task}" if draw < 0.8 else "{task}\n{text}"
            body = order.format(text=text, task=f"Complete with the words of the text: {prompt} ...")
            yield conversation(rng, body, rest)


def word_problems(path: Path, rng: random.Random, systems: Sequence[str] = STEPS) -> Iterator[str]:
    """GSM8K-style rows: mostly as chats, some as plain text."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if rng.random() < 0.75:
            yield conversation(rng, row["question"], row["answer"], systems)
        else:
            yield f"Question: {row['question']}\nAnswer: {row['answer']}"


def drawn_problems(count: int, rng: random.Random) -> Iterator[str]:
    """Freshly drawn problems of the arithmetic grammar's training side, as chats."""
    for _ in range(count):
        problem = draw_problem(rng, "train")
        yield conversation(rng, problem.question, problem.answer, STEPS)


def wikisql(path: Path, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(question, document) of WikiSQL's training questions; column names replace the table aliases."""
    for entry in json.loads(bz2.decompress(path.read_bytes())):
        for asked in entry["sentences"]:
            if asked["question-split"] != "train":
                continue
            query = entry["sql"][0].replace(" AS TABLEalias0", "").replace("TABLEalias0.", "").replace("_FIELD", "")
            for variable, value in asked["variables"].items():
                query = re.sub(rf"\b{variable}\b", value.replace("\\", r"\\"), query)
            question = asked["original"].strip()
            if rng.random() < 0.6:
                yield question, conversation(rng, question, query.strip(), _SQL)
            else:
                yield question, f"{question}\n{query.strip()}"


def repetitions(count: int, rng: random.Random, stuff: Material) -> Iterator[str]:
    """Arbitrary words and names, the same row of them several times: the densest lesson in copying."""
    for _ in range(count):
        row = " ".join(anything(rng, stuff) for _ in range(rng.randrange(3, 16)))
        yield rng.choice(("\n", " ", "; ", " | ")).join([row] * rng.randrange(2, 5))


def generic(count: int, rng: random.Random, stuff: Material) -> Iterator[str]:
    """Generic instructions as chats, now and then two turns long."""
    for _ in range(count):
        turns = [draw_turn(rng, stuff) for _ in range(2 if rng.random() < 0.15 else 1)]
        system = () if rng.random() < 0.2 else (("system", rng.choice(SYSTEMS)),)
        said = ((role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True))
        yield render((*system, *said))
