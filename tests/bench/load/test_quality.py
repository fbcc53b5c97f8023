"""Quality of timed answers: every selection of replies weighs the same scores."""

import pytest

from loradeck_bench.evaluation.answers import chrf, evaluate_answers, exact_match
from loradeck_bench.load.figures.quality import Quality
from loradeck_bench.load.plan import Subject
from loradeck_bench.load.record import OK, RequestRecord
from loradeck_registry.errors import InvalidError

LABELLED = tuple({"text": str(number), "label": "AB"[number % 2]} for number in range(6))
ASKED = tuple({"context": "", "question": f"q{n}", "short_answer": f"the answer {n}"} for n in range(4))
SUBJECTS = {
    "clf@prod": Subject("clf@prod", "classification", LABELLED),
    "clf@1": Subject("clf@1", "classification", LABELLED),
    "qa": Subject("qa", "short_qa", ASKED),
}


def reply(adapter: str, row: int, text: str, moment: float = 0.0, revision: int = 1, ok: bool = True) -> RequestRecord:
    task = SUBJECTS[adapter].task
    name = adapter.partition("@")[0]
    found = RequestRecord(0, adapter, task, row, moment, end=moment + 0.1, text=text, answered_by=name)
    found.revision, found.status = revision, OK if ok else "exhausted"
    return found


def test_repeated_rows_count_as_often_as_they_were_asked() -> None:
    records = [reply("clf@prod", 0, "A"), reply("clf@prod", 0, "A"), reply("clf@prod", 1, "A"), reply("clf@1", 1, "B")]
    found = Quality(records, SUBJECTS).describe(1.0)
    assert found["headline"] == {"classification": "accuracy"}
    assert found["per_adapter"]["clf@prod"]["accuracy"] == pytest.approx(2 / 3)
    assert (found["per_adapter"]["clf@prod"]["answers"], found["per_adapter"]["clf@prod"]["rows"]) == (3, 2)
    assert found["per_adapter"]["clf@1"]["accuracy"] == 1
    assert found["per_task"]["classification"]["accuracy"] == pytest.approx(3 / 4)


def test_texts_score_as_an_evaluation_of_the_same_answers_does() -> None:
    answers = ["the answer 0", "an answer 1", "no idea", "the answer 3"]
    records = [reply("qa", row, text) for row, text in enumerate(answers)]
    gold = [row["short_answer"] for row in ASKED]
    found = Quality(records, SUBJECTS, (chrf, exact_match)).describe(1.0)["per_task"]["short_qa"]
    expected = evaluate_answers(answers, gold, (chrf, exact_match))
    assert found["chrf"] == pytest.approx(expected["chrf"])
    assert found["exact_match"] == pytest.approx(0.5)
    assert found["intervals"]["chrf"] == pytest.approx(expected["intervals"]["chrf"])  # type: ignore[index]


def test_interval_is_over_rows_and_not_over_replies() -> None:
    """A hundred replies to two rows say no more about other rows than two replies do."""
    often = [reply("clf@prod", number % 2, "A") for number in range(100)]
    found = Quality(often, SUBJECTS).describe(1.0)["per_task"]["classification"]
    assert found["accuracy"] == 0.5
    assert found["intervals"]["accuracy"] == [0, 1]


def test_revisions_and_windows_are_told_apart() -> None:
    records = [
        reply("clf@prod", 0, "A", 0.05, 1), reply("clf@prod", 1, "A", 0.95, 2), reply("clf@prod", 0, "A", 0.95, 2),
    ]  # fmt: skip
    quality = Quality(records, SUBJECTS)
    found = quality.describe(1.0)
    assert {name: one["accuracy"] for name, one in found["per_revision"].items()} == {"clf@1": 1.0, "clf@2": 0.5}
    assert [window.get("classification") for window in found["over_time"]] == [1.0, *[None] * 8, 0.5]
    assert quality.headlines()["per_revision"]["clf@2"]["accuracy"] == 0.5


def test_failed_requests_and_rows_without_a_reference_are_not_scored() -> None:
    assert not Quality([reply("clf@prod", 0, "", ok=False)], SUBJECTS)
    subjects = {"g": Subject("g", "generate", ({"prompt": "p", "reference": " "},))}
    assert not Quality([RequestRecord(0, "g", "generate", 0, 0.0, end=0.1, status=OK, text="t")], subjects)


def test_answers_that_a_metric_cannot_read_are_said() -> None:
    def strict(answers: object, references: object) -> dict[str, object]:
        raise ValueError("reference 1 holds no number")

    with pytest.raises(InvalidError, match="holds no number"):
        Quality([reply("qa", 0, "x")], SUBJECTS, (strict,))  # type: ignore[arg-type]
