"""Question answering: BLEU, chrF, ROUGE-1, TF-IDF cosine, exact match and lengths of answers against references."""

from collections.abc import Callable, Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from sklearn.feature_extraction.text import TfidfVectorizer

from loradeck_bench.evaluation.measured import RESAMPLES, SEED, Measured, flatten, mean_of, method, percentile_interval
from loradeck_bench.evaluation.words import DESCRIPTION, UnicodeTokenizer, word_count, words

_BOOTSTRAP = f"interval: percentile bootstrap over items, {RESAMPLES} resamples, seed {SEED}"


def _corpus(metric: BLEU | CHRF, answers: Sequence[str], references: Sequence[str]) -> Measured:
    """A sacrebleu corpus score on the scale 0 to 1. The bootstrap adds up sacrebleu's own statistics per item: its
    built-in one gives no percentiles, and fails on chrF where a resample scores zero."""
    score = metric.corpus_score(list(answers), [list(references)])
    how = method("sacrebleu", str(metric.get_signature()), "divided by 100", _BOOTSTRAP)
    items = np.asarray(metric._extract_corpus_statistics(list(answers), [list(references)]))
    count = len(items)
    weights = np.random.default_rng(SEED).multinomial(count, [1 / count] * count, size=RESAMPLES)
    scores = [metric._compute_score_from_stats(total.tolist()).score / 100 for total in weights @ items]
    return Measured(float(score.score) / 100, how, *percentile_interval(np.asarray(scores, dtype=np.float64)))


def bleu(answers: Sequence[str], references: Sequence[str]) -> Measured:
    """Corpus BLEU, 0 to 1."""
    return _corpus(BLEU(), answers, references)


def chrf(answers: Sequence[str], references: Sequence[str]) -> Measured:
    """Corpus chrF2, 0 to 1."""
    return _corpus(CHRF(), answers, references)


def rouge_1(answers: Sequence[str], references: Sequence[str]) -> Measured:
    """Mean ROUGE-1 F-measure over items."""
    scorer = RougeScorer(["rouge1"], tokenizer=UnicodeTokenizer())
    values = [
        float(scorer.score(reference, answer)["rouge1"].fmeasure)
        for answer, reference in zip(answers, references, strict=True)
    ]
    return mean_of(values, method("rouge-score", "rouge1 F-measure", "no stemming", DESCRIPTION, _BOOTSTRAP))


def tfidf_cosine(answers: Sequence[str], references: Sequence[str]) -> Measured:
    """Mean cosine of TF-IDF vectors; weights come from the references alone, so that models compare on one scale."""
    vectorizer = TfidfVectorizer(analyzer=words)
    how = method("scikit-learn", "TfidfVectorizer fitted on the references", DESCRIPTION, _BOOTSTRAP)
    if not any(words(reference) for reference in references):
        return mean_of([0.0] * len(references), how)
    golden = vectorizer.fit_transform(list(references))
    given = vectorizer.transform(list(answers))
    cosines = np.asarray(golden.multiply(given).sum(axis=1), dtype=np.float64).ravel()
    return mean_of(cosines.tolist(), how)


def exact_match(answers: Sequence[str], references: Sequence[str]) -> Measured:
    """Share of answers whose words equal the reference's words."""
    values = [float(words(answer) == words(golden)) for answer, golden in zip(answers, references, strict=True)]
    return mean_of(values, f"loradeck; equal word lists; {DESCRIPTION}; {_BOOTSTRAP}")


def lengths(answers: Sequence[str], references: Sequence[str]) -> dict[str, Measured]:
    """Mean length in words of references (`ref_len`) and of answers (`resp_len`)."""
    how = f"loradeck; mean words split at white space; {_BOOTSTRAP}"
    return {
        "ref_len": mean_of([word_count(text) for text in references], how),
        "resp_len": mean_of([word_count(text) for text in answers], how),
    }


Extra = Callable[[Sequence[str], Sequence[str]], dict[str, Measured]]
"""Figures of an optional model: (answers, references) to figures under names of their own."""


def evaluate_answers(
    answers: Sequence[str], references: Sequence[str], extras: Sequence[Extra] = ()
) -> dict[str, object]:
    """All figures of one run in the form of report files. Raises ValueError when nothing was answered."""
    if not answers or len(answers) != len(references):
        raise ValueError("answers and references must be of one length, and not empty")
    figures = {
        "bleu": bleu(answers, references),
        **lengths(answers, references),
        "rouge_1": rouge_1(answers, references),
        "chrf": chrf(answers, references),
        "tfidf_cosine": tfidf_cosine(answers, references),
        "exact_match": exact_match(answers, references),
    }
    for extra in extras:
        figures |= extra(answers, references)
    return flatten(figures)
