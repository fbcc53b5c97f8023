"""One-digit problems, and questions with queries that run, keep the promises of their data cards."""

import json
import sqlite3
from contextlib import closing

import pytest

from loradeck_bench.evaluation.structured.database import Database
from loradeck_bench.evaluation.structured.gsm8k import gsm8k
from loradeck_bench.evaluation.structured.sql import sql
from tests.pocket.scripts import DATA, load_script

TABLES = DATA / "queries" / "tables.sqlite"
SEED = 20260101


def rows(task: str, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("task", "train"), [("sums", 2000), ("queries", 1600)])
def test_generator_repeats_the_committed_rows(task: str, train: int) -> None:
    generate = load_script(task, "generate")
    drawn = generate.draw_sets(train, 200, SEED)
    assert {split: [vars(row) for row in drawn[split]] for split in drawn} == {
        split: rows(task, split) for split in ("train", "test")
    }
    assert [vars(row) for row in generate.draw_sets(40, 0, 5)["train"]] != rows(task, "train")[:40]


def test_generator_repeats_the_committed_tables() -> None:
    tables = load_script("queries", "tables")
    with (
        closing(tables.build(":memory:", SEED)) as made,
        closing(sqlite3.connect(f"file:{TABLES}?mode=ro", uri=True)) as kept,
    ):
        assert list(made.iterdump()) == list(kept.iterdump())


def test_one_digit_problems_break_no_promise() -> None:
    check = load_script("sums", "check")
    train, test = rows("sums", "train"), rows("sums", "test")
    assert check.violations(check.measure(train, test)) == []
    answers = [row["answer"] for row in test]
    assert gsm8k(answers, answers)["gsm8k_strict"].value == 1.0
    wrong = [{**test[0], "a": 10}, *test[1:]]
    assert check.violations(check.measure(train, wrong))[0] == "wrong_answers is 1, not 0"


def test_queries_break_no_promise_and_all_run() -> None:
    check = load_script("queries", "check")
    train, test = rows("queries", "train"), rows("queries", "test")
    assert check.violations(check.measure(train, test, TABLES)) == []
    queries = [row["sql"] for row in test]
    database = Database(TABLES)
    assert sql(queries, queries, database)["sql_execution"].value == 1.0
    other = sql(["SELECT 4711" for _ in queries], queries, database)
    assert (other["sql_ran"].value, other["sql_execution"].value) == (1.0, 0.0)
    database.close()


def test_check_finds_a_query_that_says_nothing() -> None:
    check = load_script("queries", "check")
    test = rows("queries", "test")
    wrong = [{**test[0], "sql": "SELECT name FROM workers WHERE age > 400"}, *test[1:]]
    assert check.violations(check.measure([], wrong, TABLES)) == ["queries_that_say_nothing is 1, not 0"]


@pytest.mark.parametrize("task", ["sums", "queries"])
def test_cards_state_the_measured_figures(task: str) -> None:
    check = load_script(task, "check")
    train, test = rows(task, "train"), rows(task, "test")
    card = (DATA / task / "README.md").read_text(encoding="utf-8")
    if task == "sums":
        figures = check.measure(train, test)
        told = [", ".join(str(figures["operations"][sign]) for sign in "+-*"),
                f"{figures['facts']['all']}; {figures['facts']['least_rows']}"]  # fmt: skip
    else:
        figures = check.measure(train, test, TABLES)
        told = [f"{figures['tables']['number']}; {figures['tables']['rows']}", f"{figures['query_words']}",
                f"{figures['test_queries_not_in_training_percent']} %"]  # fmt: skip
    assert all(text in card for text in (f"{len(train):,} / {len(test)}", *told))
