"""Question answering: BLEU, chrF, ROUGE-1, TF-IDF cosine, exact match and lengths of answers against references."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from sklearn.feature_extraction.text import TfidfVectorizer

from loradeck_bench.evaluation.figure import Figure, Floats, mean
from loradeck_bench.evaluation.measured import flatten, method
from loradeck_bench.evaluation.words import DESCRIPTION, UnicodeTokenizer, word_count, words

Metric = Callable[[Sequence[str], Sequence[str]], Mapping[str, Figure]]
"""(answers, references) to figures under names of their own."""


def _corpus(metric: BLEU | CHRF, answers: Sequence[str], references: Sequence[str]) -> Figure:
    """A sacrebleu corpus score on the scale 0 to 1. Resamples add up sacrebleu's own statistics per item: its built-in
    bootstrap gives no percentiles, and fails on chrF where a resample scores zero."""
    metric.corpus_score(list(answers), [list(references)])
    how = method("sacrebleu", str(metric.get_signature()), "divided by 100")
    items = np.asarray(metric._extract_corpus_statistics(list(answers), [list(references)]), dtype=np.float64)

    def combine(totals: Floats) -> Floats:
        scores = [
            metric._compute_score_from_stats(total.tolist()).score / 100
            for total in totals.reshape(-1, totals.shape[-1])
        ]
        return np.asarray(scores, dtype=np.float64).reshape(totals.shape[:-1])

    return Figure(items, combine, how)


def bleu(answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """`bleu`: corpus BLEU, 0 to 1."""
    return {"bleu": _corpus(BLEU(), answers, references)}


def chrf(answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """`chrf`: corpus chrF2, 0 to 1."""
    return {"chrf": _corpus(CHRF(), answers, references)}


def rouge_1(answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """`rouge_1`: mean ROUGE-1 F-measure over items."""
    scorer = RougeScorer(["rouge1"], tokenizer=UnicodeTokenizer())
    values = [
        float(scorer.score(reference, answer)["rouge1"].fmeasure)
        for answer, reference in zip(answers, references, strict=True)
    ]
    return {"rouge_1": mean(values, method("rouge-score", "rouge1 F-measure", "no stemming", DESCRIPTION))}


def tfidf_cosine(answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """`tfidf_cosine`: mean cosine of TF-IDF vectors; weights come from the references alone, so that models compare on
    one scale."""
    vectorizer = TfidfVectorizer(analyzer=words)
    how = method("scikit-learn", "TfidfVectorizer fitted on the references", DESCRIPTION)
    if not any(words(reference) for reference in references):
        return {"tfidf_cosine": mean([0.0] * len(references), how)}
    golden = vectorizer.fit_transform(list(references))
    given = vectorizer.transform(list(answers))
    cosines = np.asarray(golden.multiply(given).sum(axis=1), dtype=np.float64).ravel()
    return {"tfidf_cosine": mean(cosines.tolist(), how)}


def exact_match(answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """`exact_match`: share of answers whose words equal the reference's words."""
    values = [float(words(answer) == words(golden)) for answer, golden in zip(answers, references, strict=True)]
    return {"exact_match": mean(values, method("loradeck", f"equal word lists; {DESCRIPTION}"))}


def lengths(answers: Sequence[str], references: Sequence[str]) -> dict[str, Figure]:
    """Mean length in words of references (`ref_len`) and of answers (`resp_len`)."""
    how = method("loradeck", "mean words split at white space")
    return {
        "ref_len": mean([word_count(text) for text in references], how),
        "resp_len": mean([word_count(text) for text in answers], how),
    }


TEXT: tuple[Metric, ...] = (bleu, lengths, rouge_1, chrf, tfidf_cosine, exact_match)
"""What every set of answers gets unless metrics are chosen."""


def answer_figures(
    answers: Sequence[str], references: Sequence[str], metrics: Sequence[Metric] = TEXT
) -> dict[str, Figure]:
    """Figures of all `metrics` by name. Raises ValueError when nothing was answered."""
    if not answers or len(answers) != len(references):
        raise ValueError("answers and references must be of one length, and not empty")
    figures: dict[str, Figure] = {}
    for metric in metrics:
        figures |= metric(answers, references)
    return figures


def evaluate_answers(
    answers: Sequence[str], references: Sequence[str], metrics: Sequence[Metric] = TEXT
) -> dict[str, object]:
    """All figures of one run in the form of report files. Raises ValueError when nothing was answered."""
    figures = answer_figures(answers, references, metrics)
    return flatten({name: figure.measured() for name, figure in figures.items()})
