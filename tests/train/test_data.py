"""Rows and examples: the same from every format, and a clear error for each defect."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from loradeck_registry.errors import InvalidError, LoradeckError, NotFoundError, PreconditionError
from loradeck_train.data.dataset import load_data
from loradeck_train.data.rows import read_rows
from loradeck_train.recipe.settings import Recipe
from tests.train.conftest import ROWS

Build = Callable[..., Recipe]


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_format_gives_the_same_examples(tmp_path: Path, recipe_of: Build) -> None:
    rows = [*ROWS, {"text": 'Quotes ", commas, and\nnew lines — “é”', "label": "bank"}]
    sets = [
        load_data(recipe_of(data={"source": str(_write(tmp_path / f"x{suffix}", rows))}), ("text",))
        for suffix in (".jsonl", ".csv", ".parquet")
    ]
    assert len(sets[0].training) == len(rows)
    assert sets[0].training == sets[1].training == sets[2].training
    assert len({s.digest for s in sets}) == 1
    assert sets[0].labels == ("bank", "school", "solar, wind")


def test_digest_depends_on_content(tmp_path: Path, recipe_of: Build) -> None:
    first = load_data(recipe_of(), ("text",))
    changed = _write(tmp_path / "changed.jsonl", [*ROWS[:-1], {**ROWS[-1], "text": "other"}])
    assert load_data(recipe_of(data={"source": str(changed)}), ("text",)).digest != first.digest
    assert load_data(recipe_of(data={"limit": 20}), ("text",)).digest != first.digest


def test_datasets_name_gives_the_same_rows(tmp_path: Path) -> None:
    # `datasets` takes a folder wherever it takes a hub name, so the real loader runs without a hub.
    _write(tmp_path / "train.jsonl", ROWS)
    assert read_rows(f"datasets:{tmp_path}") == ROWS
    assert read_rows(f"datasets:{tmp_path}", limit=2) == ROWS[:2]


def test_folder_of_splits_and_pattern(tmp_path: Path, recipe_of: Build) -> None:
    rows = [{"mr": "inform(name[x])", "ref": "It is x."}, {"mr": "request()", "ref": "What is it?"}]
    _write(tmp_path / "valid.csv", rows)
    columns = {"text": "ref", "label": {"column": "mr", "pattern": r"^(\w+)\("}}
    data = load_data(recipe_of(data={"source": str(tmp_path), "split": "valid", "columns": columns}), ("text",))
    assert data.labels == ("inform", "request")
    assert data.training[1].values == {"text": "What is it?"}


def test_held_out_rows_are_not_trained_on(recipe_of: Build) -> None:
    data = load_data(recipe_of(data={"validation": {"fraction": 0.25}}), ("text",))
    assert len(data.validation) == round(len(ROWS) / 4)
    assert len(data.training) + len(data.validation) == len(ROWS)
    assert not set(map(str, data.validation)) & set(map(str, data.training))
    again = load_data(recipe_of(data={"validation": {"fraction": 0.25}}), ("text",))
    assert again.validation == data.validation


@pytest.mark.parametrize(
    ("content", "changes", "kind", "reason", "words"),
    [
        (None, {"source": "absent.jsonl"}, NotFoundError, "NOT_FOUND", ["absent.jsonl"]),
        (None, {"source": "pocket:clasification"}, NotFoundError, "NOT_FOUND", ["`pocket:classification`"]),
        ("", {}, PreconditionError, "EMPTY_DATA", ["no rows"]),
        ('{"text": "a", "label": "b"}\nnot json\n', {}, InvalidError, "BAD_DATA", ["line 2"]),
        ('{"body": "a", "label": "b"}\n', {}, InvalidError, "MISSING_COLUMN", ["`text`", "body, label"]),
        ('{"text": "a", "label": " "}\n', {}, InvalidError, "BAD_ROW", ["row 1", "`label`"]),
        ('{"text": "a", "label": NaN}\n', {}, InvalidError, "BAD_ROW", ["row 1", "`label` is empty"]),
        ('{"text": {"a": 1}, "label": "b"}\n', {}, InvalidError, "BAD_ROW", ["row 1", "`text` holds a dict"]),
        ('{"text": "a \\ud800", "label": "b"}\n', {}, InvalidError, "BAD_ROW", ["row 1", "surrogate"]),
        (None, {"columns": {"txt": "text"}}, InvalidError, "BAD_RECIPE", ["txt", "text, label"]),
        (None, {"columns": {"label": {"column": "label", "pattern": "("}}}, InvalidError, "BAD_RECIPE", ["pattern"]),
        (None, {"validation": {"source": "absent.csv"}}, NotFoundError, "NOT_FOUND", ["absent.csv"]),
    ],
)
def test_bad_data_is_named(
    content: str | None,
    changes: dict[str, object],
    kind: type[LoradeckError],
    reason: str,
    words: list[str],
    tmp_path: Path,
    recipe_of: Build,
) -> None:
    if content is not None:
        path = tmp_path / "given.jsonl"
        path.write_text(content)
        changes = {"source": str(path), **changes}
    with pytest.raises(kind) as caught:
        load_data(recipe_of(data=changes), ("text",))
    assert caught.value.reason == reason
    for word in words:
        assert word in caught.value.message


def test_label_outside_the_set_is_named_with_its_row(recipe_of: Build) -> None:
    with pytest.raises(InvalidError) as caught:
        load_data(recipe_of(task={"labels": ["bank", "school"]}), ("text",))
    assert caught.value.reason == "BAD_LABEL"
    assert f"row {[r['label'] for r in ROWS].index('solar, wind') + 1} " in caught.value.message


def test_label_outside_the_set_has_the_row_of_the_file_when_rows_are_held_out(recipe_of: Build) -> None:
    for seed in range(3):
        with pytest.raises(InvalidError) as caught:
            load_data(
                recipe_of(seed=seed, task={"labels": ["bank", "school"]}, data={"validation": {"fraction": 0.5}}),
                ("text",),
            )
        assert f"row {[r['label'] for r in ROWS].index('solar, wind') + 1} " in caught.value.message


def test_label_without_training_rows_says_why(tmp_path: Path, recipe_of: Build) -> None:
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    path = str(_write(tmp_path / "two.jsonl", rows))
    with pytest.raises(InvalidError, match="held out for validation") as caught:
        load_data(recipe_of(data={"source": path, "validation": {"fraction": 0.5}}), ("text",))
    assert caught.value.reason == "BAD_LABEL"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", b'{"text": "a", "label": "b"}\n{"text": "\xff", "label": "b"}\n'),
        ("x.csv", b"text,label\n\xff,b\n"),
    ],
)
def test_line_that_is_not_utf8_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidError, match=rf"{name}: line 2 is not UTF-8") as caught:
        read_rows(str(tmp_path / name))
    assert caught.value.reason == "BAD_DATA"


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    for name, content in (("x.jsonl", '{"text": "a", "label": "b"}\n'), ("x.csv", "text,label\na,b\n")):
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        assert read_rows(str(tmp_path / name)) == [{"text": "a", "label": "b"}]


def test_damaged_csv_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("text,label\na,b\nc\n")
    with pytest.raises(InvalidError, match="line 3") as caught:
        read_rows(str(path))
    assert caught.value.reason == "BAD_DATA"
