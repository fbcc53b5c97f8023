"""The baseline without any language model: TF-IDF with logistic regression on the same split."""

from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from loradeck_bench.evaluation.classification import evaluate_classification
from loradeck_bench.evaluation.measured import method


def tfidf_baseline(
    train_texts: Sequence[str], train_labels: Sequence[str], texts: Sequence[str], gold: Sequence[str]
) -> dict[str, object]:
    """Figures of the baseline, as `evaluate_classification` gives them, and `model`, its settings in one line."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit(list(train_texts), list(train_labels))
    predicted = [str(label) for label in model.predict(list(texts))]
    settings = method(
        "scikit-learn", "TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)", "LogisticRegression(C=10)"
    )
    return {
        **evaluate_classification(gold, predicted, sorted(set(train_labels))),
        "model": settings,
        "rows": len(gold),
        "train_rows": len(train_labels),
    }
