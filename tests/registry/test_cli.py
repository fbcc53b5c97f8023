"""`loradeck registry`: what people and programs read, and how mistakes are answered."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from loradeck_cli.main import main
from loradeck_registry.registry import Registry

pytest.importorskip("torch", reason="needs the train extra")


class Command:
    """Runs `loradeck registry …` in this process."""

    def __init__(self, url: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.url: Path | None = url
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Standard output, or the error line where a failure is expected."""
        if self.url is not None:
            self._monkeypatch.setenv("LORADECK_REGISTRY", str(self.url))
        self._capsys.readouterr()
        self._monkeypatch.setattr("sys.argv", ["loradeck", "registry", *map(str, arguments)])
        try:
            main()
            exited: object = 0
        except SystemExit as end:
            exited = end.code or 0
        captured = self._capsys.readouterr()
        assert exited == code, captured.err
        return captured.err if code else captured.out

    def json(self, *arguments: object) -> Any:
        """The JSON result."""
        return json.loads(self(*arguments, "--json", "-"))


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command on a registry that does not exist yet."""
    return Command(tmp_path / "registry", capsys, monkeypatch)


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    """A good adapter with two added tokens."""
    from tests.support.tiny import make_tiny_adapter

    return make_tiny_adapter(tiny_base, tmp_path / "adapter", added_tokens=2)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task file for it."""
    content = {
        "kind": "classification",
        "template": "{text}",
        "labels": [{"name": "AI", "token": "<a>"}, {"name": "Business", "token": "<b>"}],
        "added_tokens": [{"content": "<a>", "id": 320}, {"content": "<b>", "id": 321}],
    }
    path = tmp_path / "task.json"
    path.write_text(json.dumps(content))
    return path


def test_whole_life_of_an_adapter(run: Command, tiny_base: Path, adapter: Path, task: Path, tmp_path: Path) -> None:
    run("init")
    assert run.json("add-base", "tiny", f"dir:{tiny_base}")["kind"] == "base"
    first = run.json("push", "clf", adapter, "--base", "tiny", "--task", task, "--alias", "prod", "--reason", "first")
    second = run.json("push", "clf", adapter, "--base", "tiny", "--task", task)
    assert (first["revision"], second["revision"]) == (1, 2)
    assert (first["task"], first["rank"], first["base"]) == ("classification", 8, "tiny@1")
    moved = run.json("alias", "clf", "prod", "2", "--expect", "1", "--why", "better", "--who", "ada")
    assert (moved["revision"], moved["number"]) == (2, 2)
    newest = run.json("history", "clf", "prod")["entries"][0]
    assert (newest["revision"], newest["who"], newest["why"]) == (2, "ada", "better")
    assert run.json("rollback", "clf", "prod")["revision"] == 1
    assert [row["revision"] for row in run.json("alias", "clf")["aliases"]] == [1]
    names = {row["name"]: row for row in run.json("list")["names"]}
    assert names["clf"]["aliases"] == {"prod": 1}
    assert names["clf"]["revision"] == 2
    assert [row["aliases"] for row in run.json("list", "clf")["revisions"]] == [[], ["prod"]]
    shown = run.json("show", "clf")
    assert shown["digest"] == first["digest"]
    assert shown["manifest"]["task"]["labels"][0] == {"name": "AI", "token": "<a>"}
    assert shown["record"]["reason"] == "first"
    run("pull", "clf@prod", tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()
    assert run.json("verify")["clean"] is True


def test_tables_for_people(run: Command, tiny_base: Path, adapter: Path, task: Path) -> None:
    run("init")
    assert "empty" in run("list")
    run("push", "clf", adapter, "--base", f"dir:{tiny_base}", "--task", task, "--alias", "prod")
    for arguments in (("list",), ("list", "clf"), ("show", "clf"), ("alias", "clf"), ("history", "clf", "prod")):
        output = run(*arguments)
        assert "prod" in output
        assert "sha256" in output or arguments[0] in ("list", "alias", "history")
    assert "clean" in run("verify")


def test_json_goes_to_a_file_beside_the_table(run: Command, tmp_path: Path) -> None:
    output = run("init", "--json", tmp_path / "out.json")
    assert "registry at" in output
    assert json.loads((tmp_path / "out.json").read_text()) == {"registry": str(tmp_path / "registry")}


def test_registry_option_wins_and_is_needed(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init", "--registry", tmp_path / "other")
    assert Registry.open(tmp_path / "other").names() == []
    run.url = None
    monkeypatch.delenv("LORADECK_REGISTRY")
    assert "--registry" in run("list", code=2)


def _one_line(text: str) -> str:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


class TestMistakes:
    @pytest.fixture(autouse=True)
    def _pushed(self, run: Command, tiny_base: Path, adapter: Path, task: Path) -> None:
        run("init")
        run("push", "clf", adapter, "--base", f"dir:{tiny_base}", "--task", task, "--alias", "prod")

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (("show", "clg"), 1, "did you mean clf"),
            (("show", "clf@9"), 1, "latest is 1"),
            (("show", "CLF"), 2, "bad adapter name"),
            (("alias", "clf", "prod", "1", "--expect", "4"), 1, "points to revision 1"),
            (("alias", "clf", "42", "1"), 2, "never all digits"),
            (("rollback", "clf", "prod"), 1, "nothing before"),
            (("gc", "--anything"), 1, "not implemented yet"),
            (("sign", "clf"), 1, "not implemented yet"),
            (("add-base", "tiny", "dir:/absent"), 1, "no base folder"),
            (("list", "--registry", "gopher://bucket"), 2, "s3://bucket/prefix"),
            (("list", "--registry", "/absent"), 1, "registry init"),
        ],
    )
    def test_is_one_line_with_what_to_do(self, run: Command, arguments: tuple[str, ...], code: int, words: str) -> None:
        assert words in _one_line(run(*arguments, code=code))

    def test_adapter_of_another_base(self, run: Command, adapter: Path, task: Path, tmp_path: Path) -> None:
        from tests.support.tiny import make_tiny_base

        other = make_tiny_base(tmp_path / "other", reserved=1)
        output = run("push", "clf", adapter, "--base", f"dir:{other}", "--task", task, code=1)
        assert "reserve-tokens" in _one_line(output)

    def test_task_that_is_not_one(self, run: Command, adapter: Path, tiny_base: Path, task: Path) -> None:
        task.write_text(json.dumps(json.loads(task.read_text()) | {"labls": []}))
        output = run("push", "clf", adapter, "--base", f"dir:{tiny_base}", "--task", task, code=2)
        assert "labls" in _one_line(output)

    def test_folder_that_is_neither(self, run: Command, tiny_base: Path, tmp_path: Path) -> None:
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.json").write_text("{}")
        output = run("push", "clf", tmp_path / "notes", "--base", f"dir:{tiny_base}", code=1)
        assert "config.json" in _one_line(output)

    def test_damage_fails_verify_and_names_the_object(self, run: Command, tmp_path: Path) -> None:
        blob = next(path for path in (tmp_path / "registry" / "blobs").rglob("*") if path.is_file())
        blob.write_bytes(b"rot")
        assert "1 damaged" in run("verify", code=1)
        assert "damaged" in _one_line(run("pull", "clf", tmp_path / "out", code=1))

    def test_pull_into_a_folder_in_use(self, run: Command, tmp_path: Path) -> None:
        assert "not an empty folder" in _one_line(run("pull", "clf", tmp_path, code=1))


def test_full_checkpoint_is_pushed_as_one(run: Command, tiny_base: Path, tmp_path: Path) -> None:
    run("init")
    copy = shutil.copytree(tiny_base, tmp_path / "tuned")
    pushed = run.json("push", "clf-full", copy, "--base", f"dir:{tiny_base}")
    assert (pushed["kind"], pushed["rank"]) == ("full", None)


class TestTransfer:
    @pytest.fixture(autouse=True)
    def _based(self, run: Command, tiny_base: Path) -> None:
        run("init")
        run("add-base", "tiny", f"dir:{tiny_base}")

    def test_import_converts_and_diff_tells(self, run: Command, tiny_base: Path, tmp_path: Path) -> None:
        from tests.registry.test_conversion import make_peft

        source = make_peft(tiny_base, tmp_path / "peft")
        plan = run.json("import", "clf", source, "--base", "tiny", "--dry-run")
        assert plan["dry_run"] is True
        assert any("folded" in finding for finding in plan["findings"])
        assert [row["name"] for row in run.json("list")["names"]] == ["tiny"]
        assert run.json("import", "clf", source, "--base", "tiny", "--alias", "prod")["revision"] == 1
        run("import", "clf", source, "--base", "tiny", "--dtype", "bfloat16")
        found = run.json("diff", "clf@1", "clf@2")
        assert found["fields"]["lora.dtype"] == {"left": "float32", "right": "bfloat16"}
        assert all(module["relative"] < 0.01 for module in found["modules"])
        assert "lora.dtype" in run("diff", "clf@1", "clf@2")

    def test_new_tokens_without_a_task_file(self, run: Command, tiny_base: Path, tmp_path: Path) -> None:
        from tests.registry.test_conversion import make_peft

        source = make_peft(tiny_base, tmp_path / "peft", trainable_token_indices={"embed_tokens": [320, 321]})
        (source / "added_tokens.json").write_text(json.dumps({"<a>": 320, "<b>": 321}))
        run("import", "clf", source, "--base", "tiny")
        task = run.json("show", "clf")["manifest"]["task"]
        assert task["kind"] == "generate"
        assert [token["content"] for token in task["added_tokens"]] == ["<a>", "<b>"]
        output = run("export", "clf", tmp_path / "out")
        assert "at least 322 rows" in output
        assert (tmp_path / "out" / "adapter_model.safetensors").exists()

    def test_bundle_there_and_back(self, run: Command, adapter: Path, task: Path, tmp_path: Path) -> None:
        pushed = run.json("push", "clf", adapter, "--base", "tiny", "--task", task)
        run("export", "clf", tmp_path / "clf.tar", "--format", "bundle")
        assert run.json("import", tmp_path / "clf.tar")["revision"] == 1
        assert run.json("import", "copy", tmp_path / "clf.tar")["digest"] == pushed["digest"]
        assert "--dtype" in _one_line(run("import", tmp_path / "clf.tar", "--dtype", "float32", code=2))

    def test_import_without_a_base_says_so(self, run: Command, adapter: Path) -> None:
        assert "--base" in _one_line(run("import", "clf", adapter, code=2))
