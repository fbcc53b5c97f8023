"""Cut splits: disjoint, complete, the same every time, and other ones for other data."""

import json
from pathlib import Path

import pytest

from loradeck_bench.study.cutting import cut
from loradeck_bench.study.format.work import Source
from loradeck_registry.errors import InvalidError


def source(path: Path, rows: int) -> Source:
    path.write_text("".join(json.dumps({"number": number}) + "\n" for number in range(rows)))
    return Source(train=str(path))


def numbers(file: str | None) -> list[int]:
    assert file is not None
    return [json.loads(line)["number"] for line in Path(file).read_text().splitlines()]


def test_splits_are_disjoint_and_complete(tmp_path: Path) -> None:
    made = cut(source(tmp_path / "all.jsonl", 100), {"validation": 0.1, "test": 0.05}, tmp_path / "cut")
    parts = [numbers(made.train), numbers(made.validation), numbers(made.test)]
    assert [len(part) for part in parts] == [85, 10, 5]
    assert sorted(number for part in parts for number in part) == list(range(100))
    assert parts[0] == sorted(parts[0])


def test_same_rows_are_cut_again_and_not_written_again(tmp_path: Path) -> None:
    first = cut(source(tmp_path / "all.jsonl", 100), {"test": 0.1}, tmp_path / "cut")
    again = cut(source(tmp_path / "all.jsonl", 100), {"test": 0.1}, tmp_path / "elsewhere")
    assert numbers(first.test) == numbers(again.test)
    written = Path(str(first.test)).stat().st_mtime_ns
    cut(source(tmp_path / "all.jsonl", 100), {"test": 0.1}, tmp_path / "cut")
    assert Path(str(first.test)).stat().st_mtime_ns == written


def test_projects_own_sets_are_cut_by_their_training_rows(tmp_path: Path) -> None:
    made = cut(Source(train="pocket:classification"), {"validation": 0.01}, tmp_path)
    assert len(Path(str(made.validation)).read_text().splitlines()) == 27


def test_share_of_less_than_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="none"):
        cut(source(tmp_path / "all.jsonl", 10), {"test": 0.01}, tmp_path / "cut")
