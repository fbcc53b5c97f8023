"""Words that a text is about, found without labels: latent semantic analysis of the unlabelled fragments."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

# Words of the class names of the project's classification task: they must not become answers to its texts.
CLASS_WORDS = frozenset(
    str.split(
        "ai business digital transformation edtech energytech fintech medtech "
        "science technology innovation telecom other"
    )
)


def topic_words(texts: Sequence[str], components: int = 48, seed: int = 1) -> Callable[[str], list[str]]:
    """Fit on `texts`; the function returned gives five words that the text's topics suggest, strongest first.

    The words need not occur in the text. Words of the class names are never among them.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=5, max_df=0.06, token_pattern=r"[a-z]{4,}")
    matrix = vectorizer.fit_transform(texts)
    svd = TruncatedSVD(min(components, matrix.shape[1] - 1), random_state=seed).fit(matrix)
    names = vectorizer.get_feature_names_out()
    # Directions weighted down by their size: else the commonest words win everywhere.
    basis = svd.components_ / np.sqrt(svd.singular_values_)[:, None]
    allowed = np.array([name not in CLASS_WORDS for name in names])
    usual = svd.transform(matrix[:4000]) @ basis
    mean, spread = usual.mean(axis=0), usual.std(axis=0) + 0.02

    def words(text: str) -> list[str]:
        scores = np.asarray(svd.transform(vectorizer.transform([re.sub(r"\s+", " ", text)])) @ basis)[0]
        scores = (scores - mean) / spread
        return [str(names[index]) for index in np.argsort(-np.where(allowed, scores, -np.inf))[:5]]

    return words
