"""Rows of the text2sql-data collection: variables filled in, with the definitions of the tables."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from loradeck_bench.rows import read_sample
from loradeck_bench.text2sql import text2sql_rows
from loradeck_registry.errors import InvalidError

COLUMNS = ["context=context", "question=question", "reference=sql"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    asked = {"text": "how long is river0", "question-split": "test", "variables": {"river0": "rhine"}}
    entry = {"sql": ['SELECT length FROM river WHERE name = "river0"'], "sentences": [asked]}
    (tmp_path / "land.json").write_text(json.dumps([entry]))
    return tmp_path / "land.json"


def test_variables_are_filled_in_and_other_splits_left_out(path: Path) -> None:
    row = {"question": "how long is rhine", "sql": 'SELECT length FROM river WHERE name = "rhine"'}
    assert list(text2sql_rows(path, "test")) == [row]
    assert list(text2sql_rows(path, "train")) == []


def test_database_beside_the_file_gives_every_row_its_tables(path: Path) -> None:
    with closing(sqlite3.connect(path.with_suffix(".sqlite"))) as connection:
        connection.execute('CREATE TABLE "river" ("name" text, "length" int DEFAULT NULL)')
        connection.execute("CREATE TABLE lake (area REAL)")
    before = path.with_suffix(".sqlite").read_bytes()
    (row,), _, _ = read_sample(f"text2sql:{path}", "generate", COLUMNS, None)
    assert row["context"] == "CREATE TABLE lake (area REAL); CREATE TABLE river (name TEXT, length INT)"
    assert row["reference"] == 'SELECT length FROM river WHERE name = "rhine"'
    assert path.with_suffix(".sqlite").read_bytes() == before


def test_file_beside_it_that_is_no_database_is_named(path: Path) -> None:
    path.with_suffix(".sqlite").write_text("no database, but long enough to be taken for one" * 20)
    with pytest.raises(InvalidError, match=r"land\.json"):
        list(text2sql_rows(path, "test"))
