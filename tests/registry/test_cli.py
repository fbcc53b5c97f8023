"""`loradeck registry`: what people and programs read, and how mistakes are answered."""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from loradeck_cli.main import main
from loradeck_registry.registry import Registry
from tests.registry.s3_server import make_bucket
from tests.registry.support import objects, overwrite

pytest.importorskip("torch", reason="needs the train extra")


class Command:
    """Runs `loradeck registry …` in this process."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.url: str | None = url
        self.said = ""
        """Standard error of the last command."""
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Standard output, or the error line where a failure is expected."""
        if self.url is not None:
            self._monkeypatch.setenv("LORADECK_REGISTRY", self.url)
        self._capsys.readouterr()
        self._monkeypatch.setattr("sys.argv", ["loradeck", "registry", *map(str, arguments)])
        try:
            main()
            exited: object = 0
        except SystemExit as end:
            exited = end.code or 0
        captured = self._capsys.readouterr()
        self.said = captured.err
        assert exited == code, captured.err
        return captured.err if code else captured.out

    def json(self, *arguments: object) -> Any:
        """The JSON result."""
        return json.loads(self(*arguments, "--json", "-"))


@pytest.fixture(params=["folder", "s3"])
def run(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    """The command on a registry that does not exist yet."""
    if request.param == "folder":
        return Command(str(tmp_path / "registry"), capsys, monkeypatch)
    bucket = f"cli-{uuid.uuid4().hex}"
    make_bucket(request.getfixturevalue("s3"), bucket)
    return Command(f"s3://{bucket}/registry", capsys, monkeypatch)


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
    first = run.json("push", "clf", adapter, "--base", "tiny", "--task", task, "--alias", "prod", "--why", "first")
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


def test_what_would_be_half_done_or_empty_is_refused_whole(
    run: Command, tiny_base: Path, adapter: Path, task: Path, tmp_path: Path
) -> None:
    from tests.support.tiny import make_tiny_adapter

    run("init")
    assert "base" in run("add-base", "tiny", f"dir:{tiny_base}")
    assert "no task" in run("push", "bare", make_tiny_adapter(tiny_base, tmp_path / "bare"), "--base", "tiny")
    assert "no task" not in run("push", "clf", adapter, "--base", "tiny", "--task", task)
    assert "../x" in _one_line(run("tag", "clf", "good", "../x", code=2))
    assert "good" not in run("tag", "clf", "fine")
    assert "empty" in _one_line(run("note", "clf", "  ", code=2))
    assert "registry pull" in _one_line(run("export", "tiny", tmp_path / "out", code=1))
    assert "@" in run.json("show", "clf")["record"]["author"]


def test_json_goes_to_a_file_beside_the_table(run: Command, tmp_path: Path) -> None:
    output = run("init", "--json", tmp_path / "out.json")
    assert "registry at" in output
    assert json.loads((tmp_path / "out.json").read_text()) == {"registry": run.url}


def test_registry_option_wins_and_is_needed(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init", "--registry", tmp_path / "other")
    assert Registry.open(tmp_path / "other").names() == []
    run.url = None
    monkeypatch.delenv("LORADECK_REGISTRY")
    assert "LORADECK_REGISTRY" in _one_line(run("list", code=2))


def _one_line(text: str) -> str:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_pocket_base_is_a_base(run: Command) -> None:
    run("init")
    added = run.json("add-base", "pocket", "pocket:base", "--reserve-tokens", "8")
    assert (added["kind"], added["base"]) == ("base", "pocket:base")


def test_pulled_adapter_is_pushed_again_with_its_task(
    run: Command, tiny_base: Path, adapter: Path, task: Path, tmp_path: Path
) -> None:
    run("init")
    run("push", "clf", adapter, "--base", f"dir:{tiny_base}", "--task", task)
    run("pull", "clf", tmp_path / "out")
    run("push", "copy", tmp_path / "out", "--base", f"dir:{tiny_base}")
    assert run.json("show", "copy")["manifest"]["task"] == run.json("show", "clf")["manifest"]["task"]
    (tmp_path / "out" / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text() + " ")
    assert "--task" in _one_line(run("push", "copy", tmp_path / "out", "--base", f"dir:{tiny_base}", code=1))


def test_pulled_adapter_with_changed_files_is_pushed_without_its_task_and_that_is_said(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.tiny import make_tiny_adapter

    run = Command(str(tmp_path / "registry"), capsys, monkeypatch)
    (tmp_path / "qa.json").write_text(json.dumps({"kind": "short_qa", "template": "{context} {question}"}))
    run("init")
    base = ("--base", f"dir:{tiny_base}")
    run("push", "qa", make_tiny_adapter(tiny_base, tmp_path / "made"), *base, "--task", tmp_path / "qa.json")
    run("pull", "qa", tmp_path / "out")
    run("push", "qa", tmp_path / "out", *base)
    assert "no task" not in run.said
    config = tmp_path / "out" / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    run("push", "qa", tmp_path / "out", *base)
    assert "qa@3 has no task" in run.said
    assert "--task" in run.said
    run("push", "qa", tmp_path / "out", *base, "--task", tmp_path / "qa.json")
    assert "no task" not in run.said


def test_narrow_terminal_breaks_no_word_that_is_copied(
    run: Command, tiny_base: Path, adapter: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init")
    name = "a-rather-long-name-for-an-adapter"
    run("push", name, adapter, "--base", f"dir:{tiny_base}", "--task", task, "--alias", "prod", "--why", "it is " * 30)
    digest = run.json("show", name)["digest"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("show", name)
    assert digest in shown
    assert f"compatibility {run.json('show', name)['manifest']['base']['compatibility'][:19]}" in shown
    assert digest[:19] in run("list", name)
    assert name in run("list")
    history = run("history", name, "prod")
    assert max(len(line.rstrip()) for line in history.splitlines()) <= 80
    assert f"{run.json('alias', name)['aliases'][0]['when'][:10]}" in history


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
            (("sign", "clf", "--key", "/absent"), 1, "no key file"),
            (("protect", "clf", "prod", "--rule", "f1 > x"), 2, "macro_f1 >= 0.8"),
            (("alias", "clf", "prod", "1=x", "2=1"), 2, "7=90 8=10"),
            (("list", "--since", "yesterday"), 2, "2025-01-31"),
            (("tag", "clf", "Not A Tag"), 2, "bad tag"),
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
        assert run.url is not None
        registry = Registry.open(run.url)
        overwrite(registry, next(key for key in objects(registry) if key.startswith("blobs/")), b"rot")
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


class TestCare:
    @pytest.fixture(autouse=True)
    def _pushed(self, run: Command, tiny_base: Path, adapter: Path, task: Path) -> None:
        run("init")
        run("add-base", "tiny", f"dir:{tiny_base}")
        for _ in range(3):
            run("push", "clf", adapter, "--base", "tiny", "--task", task, "--who", "ada")

    def test_gate_of_a_protected_alias(self, run: Command, tmp_path: Path) -> None:
        rules = ["macro_f1 >= 0.8", "macro_f1 >= @prod - 0.01"]
        run("protect", "clf", "prod", *(part for rule in rules for part in ("--rule", rule)))
        assert run.json("protect", "clf", "prod")["rules"] == rules
        assert "no macro_f1" in _one_line(run("alias", "clf", "prod", "1", code=1))
        for revision, value, code in ((1, 0.85, 0), (2, 0.83, 1), (3, 0.845, 0)):
            report = tmp_path / f"{revision}.json"
            report.write_text(json.dumps({"metrics": {"macro_f1": value}, "rules": ["macro_f1 <= 1"]}))
            said = run("alias", "clf", "prod", str(revision), "--gate", report, code=code)
            assert code == 0 or "it is 0.83, the bound 0.84" in said
        assert [entry["revision"] for entry in run.json("history", "clf", "prod")["entries"]] == [3, 1]
        run("protect", "clf", "prod", "--lift")
        assert run.json("alias", "clf", "prod", "2")["revision"] == 2

    def test_gate_without_rules_says_so(self, run: Command, tmp_path: Path) -> None:
        (tmp_path / "eval.json").write_text('{"macro_f1": 1}')
        assert "registry protect" in _one_line(run("alias", "clf", "x", "1", "--gate", tmp_path / "eval.json", code=2))

    def test_weighted_alias(self, run: Command) -> None:
        moved = run.json("alias", "clf", "prod", "1=90", "2=10")
        (listed,) = [row for row in run.json("list")["names"] if row["name"] == "clf"]
        assert listed["aliases"]["prod"] == {"1": 0.9, "2": 0.1}
        assert "1:0.9/2:0.1" in run("list")
        assert [(target["revision"], target["weight"]) for target in moved["targets"]] == [(1, 0.9), (2, 0.1)]
        assert "2=0.1" in run("history", "clf", "prod")
        assert run.json("show", "clf@2")["aliases"] == ["prod"]
        assert "targets" not in run.json("alias", "clf", "prod", "2")

    def test_tags_notes_evaluations_and_lineage(self, run: Command, tmp_path: Path) -> None:
        (tmp_path / "eval.json").write_text('{"macro_f1": 0.9}')
        assert run.json("tag", "clf@3", "paper", "best")["tags"] == ["best", "paper"]
        assert run.json("tag", "clf@3", "best", "--remove")["tags"] == ["paper"]
        run("note", "clf@3", "the one in the paper")
        assert run.json("attach", "clf@3", tmp_path / "eval.json")["metrics"] == {"macro_f1": 0.9}
        run("alias", "clf", "prod", "3", "--why", "better")
        shown = run.json("show", "clf@3")
        assert shown["tags"] == ["paper"]
        assert [move["why"] for move in shown["lineage"]["moves"]] == ["better"]
        assert {entry["kind"] for entry in shown["attachments"]} == {"tag", "note", "evaluation"}
        assert "the one in the paper" in run("show", "clf@3")

    def test_list_is_filtered_and_paged(self, run: Command) -> None:
        run("tag", "clf@3", "paper")
        wanted = ("--task", "classification", "--tag", "paper", "--author", "a*", "--base", "tiny@*")
        assert [row["name"] for row in run.json("list", *wanted, "--since", "2025-01-01")["names"]] == ["clf"]
        assert run.json("list", "--metric", "macro_f1 > 0")["names"] == []
        assert [row["name"] for row in run.json("list", "--kind", "base")["names"]] == ["tiny"]
        first = run.json("list", "--limit", "1")
        assert (len(first["names"]), first["next"]) == (1, "clf")
        assert [row["name"] for row in run.json("list", "--after", "clf")["names"]] == ["tiny"]
        assert "--after clf" in run("list", "--limit", "1")
        assert [row["revision"] for row in run.json("list", "clf", "--tag", "paper")["revisions"]] == [3]

    def test_gc_is_a_dry_run_unless_told(self, run: Command) -> None:
        options = ("--keep-last", "1", "--grace", "0", "--wait", "0")
        found = run.json("gc", *options)
        assert found["dry_run"]
        assert found["bytes_freed"] == 0
        assert "revisions/clf/00000001.json" in [item["object"] for item in found["found"]]
        assert "nothing was deleted" in run("gc", *options)
        done = run.json("gc", *options, "--delete")
        assert done["bytes_freed"] > 0
        assert "removed by a garbage collection" in _one_line(run("show", "clf@1", code=1))
        assert run.json("verify")["clean"]
        assert run.json("verify")["orphaned"] == []

    def test_push_signed_and_pulled_where_signatures_are_required(
        self, run: Command, adapter: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("model_signing", reason="needs the sign extra")
        from tests.registry.test_signing import make_key

        private, public = make_key(tmp_path, "key")
        push = ("push", "clf", adapter, "--base", "tiny", "--task", task, "--alias", "prod", "--sign-key")
        # A key that cannot sign publishes nothing.
        assert "not an EC private key" in _one_line(run(*push, public, code=2))
        assert run.json(*push, private)["revision"] == 4
        monkeypatch.setenv("LORADECK_SIGNATURES", "require")
        monkeypatch.setenv("LORADECK_PUBLIC_KEYS", str(public))
        run("pull", "clf@prod", tmp_path / "out")
        assert "not signed" in _one_line(run("pull", "clf@3", tmp_path / "other", code=1))
        assert run.json("sign", "clf@3", "--key", private)["signature"] == 1
        run("pull", "clf@3", tmp_path / "other")
