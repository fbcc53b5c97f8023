"""Reading and sampling of evaluation data."""

import json
from collections import Counter
from pathlib import Path

import pytest

from loradeck_bench.columns import parse_columns
from loradeck_bench.rows import COLUMNS, read_rows, sample
from loradeck_registry.errors import InvalidError, NotFoundError


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_same_rows_from_jsonl_csv_and_parquet(tmp_path: Path) -> None:
    rows = [{"text": 'a "quoted", text', "label": "x"}, {"text": "строка\nновая", "label": "y"}]
    jsonl = write(tmp_path / "d.jsonl", rows)
    csv = tmp_path / "d.csv"
    csv.write_text('text,label\n"a ""quoted"", text",x\n"строка\nновая",y\n', encoding="utf-8")
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    for source in (jsonl, str(csv), str(tmp_path / "d.parquet")):
        assert read_rows(source, "classification") == rows


def test_missing_column_is_named_with_the_row(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "lable": "x"}])
    with pytest.raises(InvalidError, match=r"d\.jsonl row 2: column 'label' is missing; .* the row has text, lable"):
        read_rows(source, "classification")


def test_empty_set_and_broken_line_and_unknown_source(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no rows in"):
        read_rows(write(tmp_path / "empty.jsonl", []), "classification")
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": "x"}\n{oops\n')
    with pytest.raises(InvalidError, match=r"broken\.jsonl: line 2"):
        read_rows(str(tmp_path / "broken.jsonl"), "classification")
    with pytest.raises(NotFoundError, match="pocket:classification"):
        read_rows("pocket:nothing", "classification")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("d.jsonl", b'{"text": "a", "label": "x"}\n{"text": "\xff", "label": "x"}\n', r"d\.jsonl: line 2 is not UTF-8"),
        ("d.csv", b"text,label\n\xff,x\n", r"d\.csv: line 2 is not UTF-8"),
        ("d.csv", b"text,label\na,x\nb,x,y\n", r"d\.csv: line 3 has another number of columns"),
        ("d.csv", b"text,label\na,x\nb\n", r"d\.csv: line 3 has another number of columns"),
        ("d.parquet", b"no parquet", r"d\.parquet: not a Parquet file"),
        ("d.jsonl", b'{"text": " ", "label": "x"}\n', r"d\.jsonl row 1: column 'text' is empty"),
        ("d.jsonl", b'{"text": ["a"], "label": "x"}\n', r"d\.jsonl row 1: column 'text' holds a list"),
    ],
)
def test_damaged_file_is_named_with_its_place(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidError, match=words):
        read_rows(str(tmp_path / name), "classification")


def test_context_may_be_empty_and_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    row = {"context": "", "question": "q", "short_answer": "a"}
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8-sig")
    assert read_rows(str(tmp_path / "d.jsonl"), "short_qa") == [row]


def test_folder_is_read_by_split(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", [{"text": "a", "label": "x"}])
    assert len(read_rows(str(tmp_path), "classification")) == 1
    with pytest.raises(NotFoundError, match=r"no split `train` in .*; there: test\.jsonl"):
        read_rows(str(tmp_path), "classification", split="train")


def test_own_sets_have_the_columns_of_every_task() -> None:
    assert len(read_rows("pocket:classification", "classification")) >= 450
    for task in ("short_qa", "long_qa"):
        assert len(read_rows("pocket:qa", task)) >= 240


def test_sample_is_stratified_and_repeatable() -> None:
    rows = [{"text": str(i), "label": "abc"[min(i // 50, 2)]} for i in range(200)]  # 50 a, 50 b, 100 c
    chosen = sample(rows, 40, by="label", seed=1)
    assert Counter(row["label"] for row in chosen) == {"a": 10, "b": 10, "c": 20}
    assert chosen == sample(rows, 40, by="label", seed=1)
    assert chosen != sample(rows, 40, by="label", seed=2)
    assert [int(row["text"]) for row in chosen] == sorted(int(row["text"]) for row in chosen)
    assert sample(rows, 500) == rows


def test_columns_of_other_names_and_parts_of_columns(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", [{"mr": "inform(name[x])", "ref": "It is x."}])
    columns = parse_columns(["text=ref", r"label=mr:^(\w+)\("], COLUMNS["classification"])
    assert read_rows(source, "classification", columns=columns) == [{"text": "It is x.", "label": "inform"}]
    columns = parse_columns(["text=ref", r"label=mr:^(\d+)"], COLUMNS["classification"])
    with pytest.raises(InvalidError, match=r"d\.jsonl row 1: column 'mr' does not match"):
        read_rows(source, "classification", columns=columns)


@pytest.mark.parametrize("text", ["label", "lable=x", "label=", "label=x:(", "label=x:abc", "label=x:(a)(b)"])
def test_bad_column_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_columns([text], COLUMNS["classification"])
