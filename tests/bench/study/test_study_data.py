"""`loradeck study data`: from a folder and from an HTTP server, checked, whole or not at all."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from loradeck_bench.study.data import catalog, fetch, place
from loradeck_bench.study.data.catalog import DataFile, DataSet, sets_of
from loradeck_bench.study.data.check import check_file
from loradeck_bench.study.files import find_study, load_study, shipped_studies
from loradeck_bench.study.inputs import choose_source
from loradeck_cli.study.data import command
from loradeck_registry.errors import InvalidError, NotFoundError, PreconditionError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
ROWS = "".join(json.dumps({"question": f"How many is {n}?", "answer": f"#### {n}"}) + "\n" for n in range(5))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> dict[str, DataSet]:
    """A catalogue with one study: a public set, and one that is not."""
    file = {"sha256": digest(ROWS), "rows": 5, "columns": ["question", "answer"]}
    sets = {
        "sums": DataSet.model_validate(
            {
                "what": "five sums",
                "licence": "CC0",
                "folders": ["five-sums"],
                "files": {
                    "train.jsonl": {**file, "names": ["train.json"], "url": "https://example.invalid/a/train.json"},
                    "LICENSE": {"optional": True},
                },
            }
        ),
        "secret": DataSet.model_validate(
            {"what": "w", "licence": "none", "get": "ask for it", "files": {"train.jsonl": {"columns": ["text"]}}}
        ),
    }
    monkeypatch.setattr(catalog, "_catalogue", lambda: {"study": sets})
    return sets


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTP server of a folder: its address and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}", folder
        found.shutdown()
        thread.join()


def put_file(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def bring(source: Path, into: Path, **options: bool) -> list[place.Placed]:
    return place.bring("study", source, into, **options)


@pytest.mark.parametrize("folder", ["sums", "five-sums"])
def test_set_comes_from_a_folder_of_its_name_with_a_record_of_it(
    folder: str, sums: dict[str, DataSet], tmp_path: Path
) -> None:
    put_file(tmp_path / "from" / folder, "train.json", ROWS)
    (placed,) = bring(tmp_path / "from", tmp_path / "into")
    assert (placed.files[0].rows, placed.files[0].known) == (5, True)
    assert (tmp_path / "into" / "sums" / "train.jsonl").read_text(encoding="utf-8") == ROWS
    record = json.loads((tmp_path / "into" / "sums" / place.RECORD).read_text(encoding="utf-8"))
    assert (record["licence"], record["files"][0]["sha256"]) == ("CC0", digest(ROWS))


def test_folder_of_one_set_is_taken_when_it_is_named(sums: dict[str, DataSet], tmp_path: Path) -> None:
    put_file(tmp_path / "anything", "train.jsonl", ROWS)
    with pytest.raises(NotFoundError, match="none of the data"):
        bring(tmp_path / "anything", tmp_path / "into")
    assert place.bring("study", tmp_path / "anything", tmp_path / "into", only=("sums",))


def test_other_version_is_refused_unless_it_is_wanted_and_leaves_no_trace(
    sums: dict[str, DataSet], tmp_path: Path
) -> None:
    put_file(tmp_path / "from" / "sums", "train.jsonl", ROWS + '{"question": "a", "answer": "#### 1"}\n')
    with pytest.raises(InvalidError, match="sha256") as caught:
        bring(tmp_path / "from", tmp_path / "into")
    assert caught.value.reason == "OTHER_VERSION"
    assert list((tmp_path / "into").iterdir()) == []
    (placed,) = bring(tmp_path / "from", tmp_path / "into", other=True)
    assert (placed.files[0].rows, placed.files[0].known) == (6, False)


def test_refused_set_leaves_the_one_before_in_its_place(sums: dict[str, DataSet], tmp_path: Path) -> None:
    put_file(tmp_path / "from" / "sums", "train.jsonl", ROWS)
    bring(tmp_path / "from", tmp_path / "into")
    put_file(tmp_path / "from" / "sums", "train.jsonl", '{"question": "cut')
    with pytest.raises(InvalidError):
        bring(tmp_path / "from", tmp_path / "into")
    assert (tmp_path / "into" / "sums" / "train.jsonl").read_text(encoding="utf-8") == ROWS


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ('{"question": "a", "answer": "b"}\n{"question": "a"}\n', "BAD_ROW", "row 2: column 'answer' is missing"),
        ('{"question": " ", "answer": "b"}\n', "BAD_ROW", "row 1: column 'question' is empty"),
        ('{"question": "a", "answer": "b"}\nnot json\n', "BAD_DATA", "line 2 is not JSON"),
        ("\n", "EMPTY_DATA", "no rows"),
    ],
)
def test_bad_row_is_named(text: str, reason: str, said: str, tmp_path: Path) -> None:
    file = DataFile(columns=("question", "answer"))
    with pytest.raises(InvalidError, match=said) as caught:
        check_file(put_file(tmp_path, "train.jsonl", text), file)
    assert caught.value.reason == reason


def test_other_number_of_rows_is_another_version(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="5 rows, not 6"):
        check_file(put_file(tmp_path, "train.jsonl", ROWS), DataFile(rows=6))


def test_public_set_is_fetched_from_a_mirror_and_checked(
    sums: dict[str, DataSet], server: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = server
    put_file(folder / "a", "train.json", ROWS)
    placed, failed = fetch.fetch("study", tmp_path / "into", mirror=address, say=lambda line: None)
    assert [one.name for one in placed] == ["sums"]
    assert failed == {}
    assert (tmp_path / "into" / "sums" / "train.jsonl").read_text(encoding="utf-8") == ROWS


@pytest.mark.parametrize(("text", "said"), [(None, "404"), (ROWS[: ROWS.index("\n") + 1], "sha256")])
def test_what_cannot_be_fetched_whole_is_one_line_and_leaves_no_trace(
    text: str | None, said: str, sums: dict[str, DataSet], server: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = server
    if text is not None:
        put_file(folder / "a", "train.json", text)
    placed, failed = fetch.fetch("study", tmp_path / "into", mirror=address, say=lambda line: None)
    assert placed == []
    assert said in failed["sums"].message
    assert "\n" not in failed["sums"].message
    assert list((tmp_path / "into").iterdir()) == []


def test_unreachable_host_says_what_to_do(sums: dict[str, DataSet], tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command, ["study", "--fetch", "--mirror", "http://127.0.0.1:9", "--work", str(tmp_path)], standalone_mode=False
    )
    message = str(getattr(result.exception, "message", result.exception))
    assert "1 of 1 sets did not come" in message
    assert "--from DIR" in message
    assert "\n" not in message


def test_set_of_the_hub_comes_in_two_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"text": f"row {number}"} for number in range(10)]
    asked: list[str] = []

    def load(name: str, *, split: str, streaming: bool) -> object:
        asked.append(f"{name}:{split}:{streaming}")
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    every = {"hub": "a/b", "columns": ["text"]}
    data = DataSet.model_validate(
        {
            "what": "w",
            "licence": "l",
            "files": {
                "train.jsonl": {**every, "every": {"of": 4, "part": "rest"}},
                "test.jsonl": {**every, "every": {"of": 4, "part": "first"}},
                "few.jsonl": {**every, "first": 3},
            },
        }
    )
    monkeypatch.setattr(catalog, "_catalogue", lambda: {"study": {"set": data}})
    (placed,), failed = fetch.fetch("study", tmp_path, say=lambda line: None)
    assert failed == {}
    assert {file.name: file.rows for file in placed.files} == {"train.jsonl": 7, "test.jsonl": 3, "few.jsonl": 3}
    assert "row 4" in (tmp_path / "set" / "test.jsonl").read_text(encoding="utf-8")
    assert "row 4" not in (tmp_path / "set" / "train.jsonl").read_text(encoding="utf-8")
    assert asked == ["a/b:train:False", "a/b:train:False", "a/b:train:True"]


def test_set_that_is_not_public_says_how_to_come_by_it(sums: dict[str, DataSet], tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="ask for it"):
        fetch.fetch("study", tmp_path, only=("secret",), say=lambda line: None)


def test_command_says_what_is_missing_and_how_to_get_it(sums: dict[str, DataSet], tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["study", "--work", str(tmp_path), "--json", str(tmp_path / "r.json")])
    assert result.exit_code == 0
    assert "missing: sums: five sums (CC0)" in result.output
    assert "ask for it" in result.output
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["missing"] == ["sums", "secret"]


def test_unknown_study_and_set_name_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="alpaca, anyscale, belle, econ-it"):
        sets_of("llama")
    with pytest.raises(NotFoundError, match="viggo, gsm8k"):
        place.chosen("anyscale", ("vigo",))


@pytest.mark.parametrize("study", shipped_studies())
def test_every_file_that_a_study_reads_is_in_the_catalogue(study: str, tmp_path: Path) -> None:
    """With empty files of the catalogue in place, the full scale finds all its data."""
    for name, data in sets_of(study).items():
        for file in data.files:
            put_file(tmp_path / name, file, "")
    found = {name: choose_source(data, tmp_path) for name, data in load_study(find_study(study), "full").data.items()}
    assert [name for name, source in found.items() if source is None] == []


@pytest.mark.parametrize(("study", "sets"), [("anyscale", 4), ("belle", 1), ("econ-it", 1)])
def test_shared_data_are_the_versions_that_the_catalogue_knows(study: str, sets: int, tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the data sets lie in ../shared/data, which is not here")
    placed = place.bring(study, SHARED, tmp_path)
    assert len(placed) == sets
    assert all(file.known for one in placed for file in one.files)
