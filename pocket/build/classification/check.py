"""Measure the classification set and exit with 1 when a promise of its data card is broken.

python check.py [FOLDER]
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from grammar import LABELS

from generate import MAX_WORDS, MIN_WORDS, OUTPUT, TEST_PER_CLASS, TRAIN_PER_CLASS, build, unlabelled

Row = dict[str, str]
FILES = ("train.jsonl", "test.jsonl")
EXTRA_ROWS, EXTRA_SEED = 10_000, 1001


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in order."""
    return re.split(r"(?<=[.!?])\"?\s+", text)


def sentences(text: str) -> set[str]:
    """The sentences of a text, lower case and without punctuation."""
    return {" ".join(re.findall(r"\w+", piece.lower())) for piece in split_sentences(text)}


def ends_only(row: Row) -> Row:
    """The row with nothing but the first and last sentence of its text."""
    pieces = split_sentences(row["text"])
    return {**row, "text": f"{pieces[0]} {pieces[-1]}"}


def word_ngrams(text: str, size: int = 8) -> set[tuple[str, ...]]:
    """All runs of ``size`` words, lower case and without punctuation."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def tfidf_scores(train: list[Row], test: list[Row]) -> tuple[float, float]:
    """(macro-F1, accuracy) on the test rows of TF-IDF over 1-2-grams with logistic regression, fitted on train."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    predicted = model.predict([row["text"] for row in test])
    gold = [row["label"] for row in test]
    return float(f1_score(gold, predicted, average="macro")), float(accuracy_score(gold, predicted))


def leak(test: list[Row], texts: list[str]) -> tuple[int, float]:
    """(sentences of the test set that occur in ``texts``, share of the test set's distinct 8-grams that do)."""
    wanted_sentences = set().union(*(sentences(row["text"]) for row in test))
    wanted_grams = set().union(*(word_ngrams(row["text"]) for row in test))
    seen_sentences: set[str] = set()
    seen_grams: set[tuple[str, ...]] = set()
    for text in texts:
        seen_sentences |= sentences(text) & wanted_sentences
        seen_grams |= word_ngrams(text) & wanted_grams
    return len(seen_sentences), len(seen_grams) / len(wanted_grams)


def is_regenerated(folder: Path) -> bool:
    """Whether ``generate.py`` writes exactly the files that lie in ``folder``."""
    with tempfile.TemporaryDirectory() as fresh:
        build(Path(fresh))
        return all((Path(fresh) / name).read_bytes() == (folder / name).read_bytes() for name in FILES)


def measure(folder: Path) -> tuple[dict[str, object], list[str]]:
    """(figures, broken promises) of the set in ``folder``; an empty second item means that all hold."""
    train, test = (read_rows(folder / name) for name in FILES)
    counts = {name: Counter(row["label"] for row in rows) for name, rows in (("train", train), ("test", test))}
    words = [len(row["text"].split()) for row in train + test]
    texts = [row["text"] for row in train + test]
    families = {row["family"] for row in train}, {row["family"] for row in test}
    shared_sentences, shared_grams = leak(test, [row["text"] for row in train])
    extra_sentences, extra_grams = leak(test, list(unlabelled(EXTRA_ROWS, EXTRA_SEED)))
    macro_f1, accuracy = tfidf_scores(train, test)
    ends_f1, _ = tfidf_scores([ends_only(row) for row in train], [ends_only(row) for row in test])
    figures: dict[str, object] = {
        "train_rows": len(train),
        "test_rows": len(test),
        "words_min": min(words),
        "words_mean": round(sum(words) / len(words), 1),
        "words_max": max(words),
        "train_families": len(families[0]),
        "test_families": len(families[1]),
        "shared_families": len(families[0] & families[1]),
        "duplicates": len(texts) - len(set(texts)),
        "test_sentences_in_train": shared_sentences,
        "test_8grams_in_train": round(shared_grams, 5),
        f"test_sentences_in_{EXTRA_ROWS}_unlabelled": extra_sentences,
        f"test_8grams_in_{EXTRA_ROWS}_unlabelled": round(extra_grams, 5),
        "tfidf_macro_f1": round(macro_f1, 4),
        "tfidf_accuracy": round(accuracy, 4),
        "tfidf_macro_f1_first_and_last_sentence": round(ends_f1, 4),
    }
    promises = {
        f"train has {TRAIN_PER_CLASS} rows a class": counts["train"] == dict.fromkeys(LABELS, TRAIN_PER_CLASS),
        f"test has {TEST_PER_CLASS} rows a class": counts["test"] == dict.fromkeys(LABELS, TEST_PER_CLASS),
        f"{MIN_WORDS} to {MAX_WORDS} words a row": min(words) >= MIN_WORDS and max(words) <= MAX_WORDS,
        "the files are what generate.py writes": is_regenerated(folder),
        "no family on both sides": not families[0] & families[1],
        "no row twice": len(texts) == len(set(texts)),
        "no test sentence in train or in unlabelled text": shared_sentences == extra_sentences == 0,
        "under 1 % of the test set's 8-grams in train or in unlabelled text": max(shared_grams, extra_grams) < 0.01,
        "TF-IDF with logistic regression under 0.95 macro-F1": macro_f1 < 0.95,
    }
    return figures, [promise for promise, holds in promises.items() if not holds]


def main() -> int:
    """Print the figures; 1 when a promise is broken."""
    figures, broken = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
    for name, value in figures.items():
        print(f"{name}: {value}")
    for promise in broken:
        print(f"BROKEN: {promise}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
