"""Builds the pre-training corpus: draws every source, keeps all test rows out, asserts that none is left."""

import bz2
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lookups import free_material, lookups
from sources import (
    drawn_problems,
    fragments,
    generic,
    material,
    rarity,
    repetitions,
    reports,
    wikisql,
    word_problems,
)
from topics import topic_words

TEST_SENTENCE_WORDS = 8  # shorter sentences ("How much is left?") belong to nobody


@dataclass(frozen=True)
class Inputs:
    """Files of the corpus; `fragments` holds unlabelled media fragments, `tests` all test sets to keep out."""

    fragments: Path
    arithmetic: Path
    gsm8k: Path
    wikisql: Path
    tests: tuple[Path, ...]


@dataclass(frozen=True)
class Sizes:
    """Documents to draw from the sources that can give any number; the others are taken once."""

    reports: int
    generic: int
    repetitions: int
    lookups: int
    drawn_arithmetic: int
    wikisql_share: float
    gsm8k_share: float
    seed: int


@dataclass(frozen=True)
class Document:
    """One document of the corpus and the name of its source."""

    source: str
    text: str


def normalise(text: str) -> str:
    """Lower-cased words and numbers of a text, one space between."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def sentences(text: str) -> Iterator[str]:
    """Normalised sentences and lines of a text."""
    for part in re.split(r"(?<=[.?!])\s+|\n+|<\|[a-z_]+\|>", text):
        if part:
            yield normalise(part)


def test_texts(paths: Iterable[Path]) -> set[str]:
    """All sentences of `TEST_SENTENCE_WORDS` words or more in any column of the given test files (JSONL)."""
    found = set[str]()
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            for value in json.loads(line).values():
                found.update(text for text in sentences(str(value)) if len(text.split()) >= TEST_SENTENCE_WORDS)
    return found


def wikisql_other_splits(path: Path) -> set[str]:
    """Questions of WikiSQL's development and test splits, normalised."""
    return {
        normalise(asked["original"])
        for entry in json.loads(bz2.decompress(path.read_bytes()))
        for asked in entry["sentences"]
        if asked["question-split"] != "train"
    }


def read_fragments(path: Path) -> list[str]:
    """Texts of a JSONL file with a `text` column, or of a plain file with one text a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] if line.startswith("{") else line for line in lines if line.strip()]


def draw_documents(inputs: Inputs, sizes: Sizes) -> Iterator[Document]:
    """All documents, source by source, before the test rows are taken out."""

    def rng(name: str) -> random.Random:
        return random.Random(f"{name}-{sizes.seed}")

    texts = read_fragments(inputs.fragments)
    closed, choose = wikisql_other_splits(inputs.wikisql), rng("share")
    rare = rarity(texts[:20_000] + list(reports(3000, rng("rarity"), str.split)))
    topic = topic_words(texts[:20_000])
    yield from (Document("fragments", text) for text in fragments(texts, rng("fragments"), rare, topic))
    yield from (Document("reports", text) for text in reports(sizes.reports, rng("reports"), rare))
    yield from (Document("generic", text) for text in generic(sizes.generic, rng("generic"), material(texts)))
    repeated = repetitions(
        sizes.repetitions, rng("repetitions"), free_material(material(texts)) if sizes.lookups else material(texts)
    )
    yield from (Document("repetitions", text) for text in repeated)
    looked_up = lookups(sizes.lookups, rng("lookups"), material(texts))
    yield from (Document("lookups", text) for text in looked_up)
    yield from (Document("arithmetic", text) for text in word_problems(inputs.arithmetic, rng("arithmetic")))
    yield from (Document("arithmetic", text) for text in drawn_problems(sizes.drawn_arithmetic, rng("drawn")))
    for text in word_problems(inputs.gsm8k, rng("gsm8k")):
        if choose.random() < sizes.gsm8k_share:
            yield Document("gsm8k", text)
    for question, text in wikisql(inputs.wikisql, rng("wikisql")):
        if normalise(question) not in closed and choose.random() < sizes.wikisql_share:
            yield Document("wikisql", text)


def build(inputs: Inputs, sizes: Sizes) -> tuple[list[Document], dict[str, int]]:
    """The corpus in a fixed shuffled order, and how many documents per source were dropped for a test sentence."""
    closed = test_texts(inputs.tests)
    kept, dropped, seen = list[Document](), Counter[str](), set[str]()
    for document in draw_documents(inputs, sizes):
        if document.text in seen:
            continue
        seen.add(document.text)
        if any(text in closed for text in sentences(document.text)):
            dropped[document.source] += 1
        else:
            kept.append(document)
    random.Random(sizes.seed).shuffle(kept)
    left = sum(text in closed for document in kept for text in sentences(document.text))
    assert left == 0, f"{left} test sentences are in the corpus"
    return kept, dict(dropped)
