"""The committed question-answering and arithmetic sets keep the promises of their data cards."""

import json
from pathlib import Path

import pytest

from tests.pocket.scripts import DATA, load_script


def rows(task: str, split: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (DATA / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_question_answering_set_breaks_no_promise() -> None:
    check = load_script("qa", "check")
    train, test = rows("qa", "train"), rows("qa", "test")
    figures = check.measure(train, test)
    assert check.violations(train, test, figures) == []


def test_check_finds_a_test_row_that_leaked_into_training() -> None:
    check = load_script("qa", "check")
    train, test = rows("qa", "train"), rows("qa", "test")
    leaked = [*train, *test[:20]]
    broken = " ".join(check.violations(leaked, test, check.measure(leaked, test)))
    assert "shared_sentences" in broken
    assert "8-grams" in broken
    assert "duplicate_contexts" in broken


def test_most_answer_words_stand_in_the_context() -> None:
    check = load_script("qa", "check")
    assert check.span_share(rows("qa", "test")) > 0.95


def test_arithmetic_answers_are_right_and_splits_apart() -> None:
    check = load_script("arithmetic", "check")
    train, test = rows("arithmetic", "train"), rows("arithmetic", "test")
    assert len(train) >= 2000
    assert len(test) >= 300
    assert all(check.correct(row) for row in train + test)
    assert not {check.pair(row) for row in train} & {check.pair(row) for row in test}
    assert not {check.form(row["question"]) for row in train} & {check.form(row["question"]) for row in test}


def test_check_finds_a_wrong_sum() -> None:
    check = load_script("arithmetic", "check")
    row = dict(rows("arithmetic", "test")[0])
    row["a"] = int(str(row["a"])) + 1
    assert not check.correct(row)


@pytest.mark.parametrize(("task", "seed"), [("qa", 20260101), ("arithmetic", 20260101)])
def test_generator_repeats_the_committed_rows(task: str, seed: int) -> None:
    generate = load_script(task, "generate")
    # The full count matters: rows are balanced over the whole set.
    drawn = generate.draw_split("test", 300, seed)
    assert [vars(row) for row in drawn] == rows(task, "test")


@pytest.mark.parametrize("task", ["qa", "arithmetic"])
def test_another_seed_gives_other_rows(task: str) -> None:
    generate = load_script(task, "generate")
    assert [vars(row) for row in generate.draw_split("test", 24, 5)] != rows(task, "test")[:24]


def test_data_cards_state_the_measured_figures() -> None:
    check = load_script("qa", "check")
    figures = check.measure(rows("qa", "train"), rows("qa", "test"))
    card = Path(DATA / "qa" / "README.md").read_text(encoding="utf-8")
    for column in ("context", "short_answer", "long_answer"):
        words = figures[f"{column}_words"]
        assert f"{words['min']} / {words['mean']} / {words['max']}" in card
    assert f"{figures['answer_words_in_context_percent']} %" in card
