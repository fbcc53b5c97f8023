"""The instructions in nine categories and the sentences with meanings keep the promises of their data cards."""

import json

import pytest

from loradeck_bench.evaluation.structured.viggo import parse_meaning
from tests.pocket.scripts import DATA, load_script

Rows = list[dict[str, str]]


def rows(task: str, split: str) -> Rows:
    return [json.loads(line) for line in (DATA / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def instructions() -> tuple[Rows, Rows, Rows]:
    return rows("instructions", "train"), rows("instructions", "test"), rows("instructions", "math")


def test_instructions_break_no_promise() -> None:
    check = load_script("instructions", "check")
    train, test, math = instructions()
    assert check.violations(train, test, check.measure(train, test, math)) == []


def test_check_finds_what_leaked_into_training() -> None:
    check = load_script("instructions", "check")
    train, test, math = instructions()
    leaked = [*train[:-9], *test[:9]]
    broken = " ".join(check.violations(leaked, test, check.measure(leaked, test, math)))
    assert "duplicate_instructions" in broken
    assert "shared_wordings" in broken


def test_check_finds_a_wrong_sum_and_an_uneven_scale() -> None:
    check = load_script("instructions", "check")
    train, test, math = instructions()
    wrong = [{**math[0], "output": math[0]["output"] + "0"}, *math[1:]]
    uneven = sorted(train, key=lambda row: row["category"])
    broken = " ".join(check.violations(uneven, test, check.measure(uneven, test, wrong)))
    assert "wrong_sums" in broken
    assert "the first 300 rows are uneven" in broken


def test_generators_repeat_the_committed_rows() -> None:
    for task, counts in (("instructions", {"train": 2700, "test": 180}), ("meanings", {"train": 1600, "test": 200})):
        generate = load_script(task, "generate")
        for split, count in counts.items():
            assert [vars(row) for row in generate.draw_split(split, count, 20260101)] == rows(task, split)
    generate = load_script("meanings", "generate")
    train_rows = generate.draw_split("train", 1600, 20260101)
    familiar = generate.draw_familiar(200, 20260101, train_rows)
    assert [vars(row) for row in familiar] == rows("meanings", "familiar")
    train, test, math = instructions()
    taken = {row["instruction"] for row in (*train, *test)}
    drawn = load_script("instructions", "generate").draw_math(340, 20260101, taken)
    assert [vars(row) for row in drawn] == math


def test_answers_of_python_run() -> None:
    for row in rows("instructions", "test"):
        if row["output"].startswith(("def ", "for ")):
            compile(row["output"], "answer", "exec")


@pytest.mark.parametrize("task", ["instructions", "meanings"])
def test_another_seed_gives_other_rows(task: str) -> None:
    generate = load_script(task, "generate")
    assert [vars(row) for row in generate.draw_split("test", 24, 5)] != rows(task, "test")[:24]


def test_meanings_break_no_promise_and_parse_as_viggo_does() -> None:
    check = load_script("meanings", "check")
    train, test, familiar = (rows("meanings", split) for split in ("train", "test", "familiar"))
    assert check.violations(check.measure(train, test, familiar)) == []
    assert check.violations(check.measure(train, test, [*familiar, test[0]])) == [
        "duplicate_sentences is 1, not 0",
        "unfamiliar_forms is 1, not 0",
    ]
    parsed = [parse_meaning(row["meaning"]) for row in (*train, *test, *familiar)]
    assert all(meaning is not None and meaning.slots for meaning in parsed)


def test_check_finds_a_value_that_the_sentence_does_not_have() -> None:
    check = load_script("meanings", "check")
    train, test = rows("meanings", "train"), rows("meanings", "test")
    name = next(value for value in ("Igor", "Mina") if value not in test[0]["sentence"])
    wrong = [{**test[0], "meaning": f"buy(name[{name}])"}, *test[1:]]
    assert check.violations(check.measure(train, wrong)) == ["not_told is 1, not 0"]


@pytest.mark.parametrize("task", ["instructions", "meanings"])
def test_cards_state_the_number_of_rows(task: str) -> None:
    card = (DATA / task / "README.md").read_text(encoding="utf-8")
    for split in ("train", "test"):
        assert f"{len(rows(task, split)):,}" in card
