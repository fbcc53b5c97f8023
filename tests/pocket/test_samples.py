"""The shipped samples are what their cards say, and carry their licences."""

import json

import pytest

from loradeck_bench.evaluation.structured.gsm8k import strict
from loradeck_bench.evaluation.structured.sql import parse
from tests.pocket.scripts import DATA


def rows(name: str, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("name", "licence"), [("gsm8k", "MIT License"), ("wikisql", "BSD 3-Clause License")])
def test_sample_has_its_size_its_licence_and_no_question_in_both_splits(name: str, licence: str) -> None:
    train, test = rows(name, "train"), rows(name, "test")
    assert (len(train), len(test)) == (1000, 200)
    assert licence in (DATA / name / "LICENSE").read_text(encoding="utf-8")
    assert {row["question"] for row in train}.isdisjoint(row["question"] for row in test)


def test_every_problem_has_a_final_number() -> None:
    assert all(strict(row["answer"]) is not None for split in ("train", "test") for row in rows("gsm8k", split))


def test_every_query_parses() -> None:
    assert [
        row["sql"] for split in ("train", "test") for row in rows("wikisql", split) if parse(row["sql"]) is None
    ] == []
