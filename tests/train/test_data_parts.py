"""Parts of the data: mixed tasks, marks instead of prompts, rows on the disk, test rows, leakage, token statistics."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_tasks.blind import BLIND
from loradeck_tasks.rendering import render_prompt
from loradeck_train.data.leakage import find_leakage
from loradeck_train.data.spool import Spool
from loradeck_train.prepare import prepare
from loradeck_train.recipe.settings import Recipe
from loradeck_train.run import run
from tests.train.conftest import ROWS

Build = Callable[..., Recipe]


@pytest.fixture
def questions(tmp_path: Path) -> dict[str, Any]:
    """Ten rows of short answers, as a part of a mixture."""
    path = tmp_path / "qa.jsonl"
    rows = [{"context": f"The bank has {i} branches.", "question": "How many?", "answer": f"{i}"} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"source": str(path), "task": {"kind": "short_qa", "system": "Be short."}}


@pytest.mark.parametrize(("weight", "rows"), [(1.0, 10), (2.0, 20), (0.5, 5), (1.3, 13), (0.01, 1)])
def test_mixed_rows_come_as_often_as_their_weight_says(
    weight: float, rows: int, recipe_of: Build, questions: dict[str, Any]
) -> None:
    prepared = prepare(recipe_of(data={"mixture": [questions | {"weight": weight}]}), None)
    assert len(prepared.training) == len(ROWS) + rows
    assert prepared.training[: len(ROWS)] == prepare(recipe_of(), None).training[: len(ROWS)] or rows
    texts = [prepared.tokenizer.decode(e.prompt) for e in list(prepared.training)[len(ROWS) :]]
    assert all("Be short." in text and "How many?" in text for text in texts)
    assert len(set(texts)) == min(rows, 10)
    assert [row["rows"] for row in prepared.statistics] == [len(ROWS), 10]
    assert prepared.counts.total == sum(e.length for e in prepared.training)


def test_mixed_run_is_published_with_the_main_task(recipe_of: Build, questions: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipe_of(data={"mixture": [questions]}, optimisation={"max_steps": 4})
    report = run(recipe, None, tmp_path / "out", console=Console(quiet=True))
    assert report.manifest.task is not None
    assert report.manifest.task["kind"] == "classification"
    assert str(tmp_path) not in report.manifest.canonical_json().decode()
    assert report.manifest.provenance["data"]["digest"] != prepare(recipe_of(), None).data.digest


def test_mixed_part_may_not_add_tokens(recipe_of: Build, questions: dict[str, Any]) -> None:
    questions["task"]["added_tokens"] = ["<x>"]
    with pytest.raises(InvalidError, match="main task only"):
        recipe_of(data={"mixture": [questions]})


def test_mixed_classification_has_its_labels_as_text(
    recipe_of: Build, questions: dict[str, Any], rows_file: Path
) -> None:
    part = {"source": str(rows_file), "task": {"kind": "classification"}}
    recipe = recipe_of(
        data={"source": questions["source"], "mixture": [part]}, task={"kind": "short_qa"}, publish={"probe_prompts": 2}
    )
    prepared = prepare(recipe, None)
    assert prepared.task.added_tokens == ()
    assert prepared.tokenizer.decode(prepared.training[10].answer) == f"{ROWS[0]['label']}<|im_end|>"


def test_blind_format_is_question_and_answer_between_marks(recipe_of: Build, questions: dict[str, Any]) -> None:
    recipe = recipe_of(data={"source": questions["source"]}, task={"kind": "short_qa", "format": "blind"})
    prepared = prepare(recipe, None)
    ids = {token.content: token.id for token in prepared.task.added_tokens}
    assert tuple(ids) == BLIND
    example = prepared.training[3]
    whole = [*example.prompt, *example.answer]
    assert [t for t in whole if t in ids.values()] == [ids[mark] for mark in BLIND]
    assert prepared.tokenizer.decode(whole) == (
        "<START_Q>The bank has 3 branches.\n\nQuestion: How many?<END_Q><START_A>3<END_A><|im_end|>"
    )
    assert (prepared.task.format, prepared.task.system, prepared.task.stop) == ("plain", None, ("<END_A>",))
    values = {"context": "The bank has 3 branches.", "question": "How many?"}
    assert tuple(render_prompt(prepared.task, values, prepared.tokenizer)) == example.prompt


def test_rows_on_the_disk_are_the_rows_in_memory(recipe_of: Build, tmp_path: Path) -> None:
    changes = {"validation": {"fraction": 0.2}, "test": {"fraction": 0.1}}
    memory, disk = (prepare(recipe_of(data={**changes, "streaming": on}), None) for on in (False, True))
    assert isinstance(disk.training, Spool)
    for name in ("training", "validation", "test"):
        assert list(getattr(disk, name)) == list(getattr(memory, name))
        assert list(getattr(disk.data, name)) == list(getattr(memory.data, name))
    assert (disk.data.digest, disk.counts) == (memory.data.digest, memory.counts)
    reports = [
        run(recipe_of(data={**changes, "streaming": on}), None, tmp_path / str(on), console=Console(quiet=True))
        for on in (False, True)
    ]
    assert [e["loss"] for e in reports[0].result.history] == [e["loss"] for e in reports[1].result.history]


def test_spool_holds_bytes_on_the_disk_and_not_in_memory() -> None:
    import psutil

    held = psutil.Process().memory_info().rss
    spool = Spool((bytes([i % 251]) * 100_000 for i in range(2_000)), lambda item: item, lambda item: item)
    assert len(spool) == 2_000
    assert psutil.Process().memory_info().rss - held < 20 * 2**20
    assert spool[1_999] == bytes([1_999 % 251]) * 100_000
    assert [item[0] for item in spool[3:6]] == [3, 4, 5]
    with pytest.raises(IndexError):
        spool[2_000]


def test_validation_and_test_rows_are_held_out_apart(recipe_of: Build) -> None:
    data = prepare(recipe_of(data={"validation": {"fraction": 0.2}, "test": {"fraction": 0.2}}), None).data
    parts = [set(map(str, part)) for part in (data.training, data.validation, data.test)]
    assert [len(part) for part in parts] == [len(ROWS) - 14, 7, 7]
    assert len(set.union(*parts)) == len(ROWS)


def test_leakage_is_found_whole_and_by_thirteen_words() -> None:
    long = " ".join(f"word{i}" for i in range(30))
    training = ["A bank grows.", f"Before. {long} after", "other"]
    held_out = [
        "a  BANK grows",
        " ".join(f"word{i}" for i in range(10, 23)),
        " ".join(f"word{i}" for i in range(12)),
        "new",
    ]
    found = find_leakage(training, held_out)
    assert (found.rows, found.exact, found.overlapping, found.first) == (4, 1, 1, 1)


def test_leakage_is_reported_or_refused(recipe_of: Build, rows_file: Path, tmp_path: Path) -> None:
    lines = rows_file.read_text().splitlines(keepends=True)
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(lines[0] + json.dumps({"text": "Nothing like it.", "label": "bank"}) + "\n")
    validation = {"validation": {"source": str(held_out)}}
    assert prepare(recipe_of(data=validation), None).data.leakage["validation"].exact == 1
    with pytest.raises(PreconditionError, match="1 of 2 validation rows") as caught:
        prepare(recipe_of(data={**validation, "leakage": "refuse"}), None)
    assert caught.value.reason == "DATA_LEAKAGE"
    assert prepare(recipe_of(data={**validation, "leakage": "off"}), None).data.leakage == {}


@pytest.mark.parametrize(
    "data",
    [{"split": "test"}, {"validation": {"split": "valid"}}, {"test": {"source": "held-out.csv", "split": "test"}}],
)
def test_split_of_a_single_file_is_refused(recipe_of: Build, data: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match="one file and has no split"):
        recipe_of(data=data)


def test_statistics_count_tokens(recipe_of: Build, questions: dict[str, Any]) -> None:
    prepared = prepare(recipe_of(data={"mixture": [questions]}), None)
    main, other = prepared.statistics
    assert main["mean_answer"] == 1.0  # a label token
    lengths = sorted(e.length for e in list(prepared.training)[len(ROWS) :])
    assert (other["longest"], other["total"], other["rows"]) == (lengths[-1], sum(lengths), 10)
    assert other["system_prompt"] == len(prepared.tokenizer.encode("Be short."))
