"""Question-answering figures against examples computed by hand."""

import math

import pytest

from loradeck_bench.evaluation.answers import bleu, chrf, evaluate_answers, exact_match, lengths, rouge_1, tfidf_cosine
from loradeck_bench.evaluation.figure import mean
from loradeck_bench.evaluation.words import words


def test_words_keep_every_script() -> None:
    assert words("Ещё один Ответ, naïve!") == ["ещё", "один", "ответ", "naïve"]
    assert words("答案是42") == ["答", "案", "是", "42"]


def test_rouge_1_matches_hand_computation() -> None:
    # 2 of 3 answer words and 2 of 4 reference words agree: precision 2/3, recall 1/2, F = 4/7.
    assert rouge_1(["the red fox"], ["the fox jumped far"])["rouge_1"].value == pytest.approx(4 / 7)


def test_rouge_1_sees_words_that_are_not_ascii() -> None:
    assert rouge_1(["столица Москва"], ["Москва"])["rouge_1"].value == pytest.approx(2 / 3)


def test_bleu_matches_hand_computation() -> None:
    # 5 of 6 unigrams, 4 of 5 bigrams, 3 of 4 trigrams, 2 of 3 4-grams; equal lengths, so no brevity penalty.
    expected = math.exp(sum(math.log(p) for p in (5 / 6, 4 / 5, 3 / 4, 2 / 3)) / 4)
    figure = bleu(["a b c d e f"], ["a b c d e g"])["bleu"].measured()
    assert figure.value == pytest.approx(expected)
    assert "tok:13a" in figure.method
    assert "version:" in figure.method


def test_brevity_penalty_applies() -> None:
    full = "the plan was approved by the city council on Monday"
    short = "the plan was approved by the"
    assert bleu([short], [full])["bleu"].value == pytest.approx(math.exp(1 - 10 / 6))


def test_identical_answers_score_one() -> None:
    texts = ["To curb refund disputes.", "Miracore Engineering and others."]
    for metric in (bleu, chrf, rouge_1, tfidf_cosine, exact_match):
        assert metric(texts, texts)[metric.__name__].value == pytest.approx(1.0), metric.__name__


def test_unrelated_answers_score_zero() -> None:
    for metric in (rouge_1, tfidf_cosine, exact_match):
        assert metric(["xyz"], ["alpha beta"])[metric.__name__].value == 0.0, metric.__name__


def test_lengths_count_words() -> None:
    figures = lengths(["one two", ""], ["one two three", "one"])
    assert (figures["ref_len"].value, figures["resp_len"].value) == (2.0, 1.0)


def test_tfidf_weights_do_not_depend_on_the_answers() -> None:
    references = ["alpha beta", "alpha gamma"]
    alone = tfidf_cosine(["beta", "gamma"], references)["tfidf_cosine"].value
    assert tfidf_cosine(["beta zzz zzz", "gamma"], references)["tfidf_cosine"].value == pytest.approx(alone)
    assert 1 / math.sqrt(2) < alone < 1  # the word in both references weighs less than the one that tells them apart


def test_interval_of_a_mean_covers_it_and_narrows_with_items() -> None:
    few, many = mean([0.0, 1.0] * 10, "x").measured(), mean([0.0, 1.0] * 1000, "x").measured()
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    assert few.low < 0.5 < few.high
    assert many.high - many.low < (few.high - few.low) / 5


def test_all_columns_are_there_with_their_methods() -> None:
    figures = evaluate_answers(["a b"], ["a b c"])
    columns = {"bleu", "ref_len", "resp_len", "rouge_1", "chrf", "tfidf_cosine", "exact_match"}
    assert columns <= set(figures)
    assert set(figures["methods"]) == columns  # type: ignore[call-overload]


def test_nothing_answered_is_refused() -> None:
    with pytest.raises(ValueError, match="not empty"):
        evaluate_answers([], [])


def test_interval_of_bleu_covers_the_figure() -> None:
    references = [f"the plan of city {i} was approved by the council on day {i}" for i in range(40)]
    answers = [text if i % 2 else text.replace("approved", "refused") for i, text in enumerate(references)]
    for metric in (bleu, chrf):
        figure = metric(answers, references)[metric.__name__].measured()
        assert figure.low is not None
        assert figure.high is not None
        assert 0.3 < figure.low < figure.value < figure.high < 1
