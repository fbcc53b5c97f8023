"""The demo's parts: its commands run side by side, its folder, its names, its progress and its headline."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from loradeck_bench.children import Child, ChildFailedError
from loradeck_bench.demo import workplace as workplace_module
from loradeck_bench.demo.headline import headline
from loradeck_bench.demo.plan import STEPS, DemoPlan, name_of_base
from loradeck_bench.demo.progress import Progress
from loradeck_bench.demo.server import serving
from loradeck_bench.demo.story import MARKER, check_finished, clear
from loradeck_bench.demo.training import output_folder, train_command
from loradeck_bench.demo.workplace import Workplace
from loradeck_client.access import Access
from loradeck_registry.errors import PreconditionError, UnavailableError


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


@pytest.fixture
def workplace(tmp_path: Path, console: Console) -> Workplace:
    return Workplace(tmp_path, Progress(console, ("one", "two")))


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_commands_run_side_by_side_and_tell_their_seconds(workplace: Workplace) -> None:
    seconds = workplace.run({name: ["registry", "--help"] for name in ("a", "b", "c")}, at_once=2)
    assert set(seconds) == {"a", "b", "c"}
    assert "Keep, show, move" in (workplace.logs / "c.log").read_text()


def test_failed_command_ends_the_others_and_shows_its_log(workplace: Workplace, tmp_path: Path) -> None:
    missing = ["registry", "list", "--registry", str(tmp_path / "nothing")]
    with pytest.raises(ChildFailedError, match="bad failed") as failure:
        workplace.run({"bad": missing, "other": ["registry", "--help"]}, at_once=2)
    assert "nothing" in failure.value.message


def test_cores_are_shared_by_commands_side_by_side(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplace_module, "cores", lambda: 8)
    monkeypatch.setattr(
        Child,
        "loradeck",
        classmethod(
            lambda cls, name, arguments, log, environment: cls(
                name,
                [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"],
                log,
                environment=environment,
            )
        ),
    )
    workplace.run({"a": [], "b": [], "c": []}, at_once=2)
    assert [(workplace.logs / f"{name}.log").read_text().strip() for name in "abc"] == ["4", "4", "4"]


def test_only_a_folder_of_a_demo_is_emptied(tmp_path: Path) -> None:
    clear(tmp_path / "new")
    (tmp_path / "new" / "report.html").touch()
    clear(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [MARKER]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    with pytest.raises(PreconditionError, match="was not made by a demo"):
        clear(tmp_path / "precious")
    assert (tmp_path / "precious" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2.5-1.5b-instruct"),
        ("hub:Qwen/Qwen2-7B@main", "qwen2-7b"),
        ("dir:./models/My Base/", "my-base"),
        ("dir:/", "base"),
    ],
)
def test_base_gets_a_registry_name(reference: str, name: str) -> None:
    assert name_of_base(reference) == name


def test_second_revision_differs_and_works_elsewhere(workplace: Workplace) -> None:
    plan = DemoPlan()
    first = train_command(workplace, plan.adapters["train clf"], "pocket")
    second = train_command(workplace, plan.second, "pocket", publish=False)
    assert first[first.index("--publish") + 1] == "clf@prod"
    assert "--publish" not in second
    assert "seed=1" in second
    assert output_folder(workplace, plan.second) != output_folder(workplace, plan.adapters["train clf"])


def test_settings_of_quick_runs_and_of_large_bases_are_recipe_keys(workplace: Workplace) -> None:
    from loradeck_train.recipe.files import load_recipe

    for plan in (DemoPlan(), DemoPlan(quick=True), DemoPlan(base="hub:a/b", base_name="b", quick=True)):
        for training in (*plan.adapters.values(), plan.full, plan.second):
            recipe = load_recipe(training.recipe, sets=[f"{key}={value}" for key, value in training.settings.items()])
            assert recipe.seed == int(training.settings.get("seed", 0))
            assert (recipe.optimisation.max_steps == 4) == plan.quick
            assert (recipe.optimisation.learning_rate in (3e-4, 2e-5)) == (plan.base_name == "b")


def test_progress_says_what_runs_and_what_comes_next(console: Console) -> None:
    progress = Progress(console, ("one", "two"))
    with progress.step("one"):
        progress.say("a [bracketed] result")
    with pytest.raises(RuntimeError), progress.step("two"):
        raise RuntimeError
    shown = text(console)
    assert "[1/2] one" in shown
    assert "next: two" in shown
    assert "a [bracketed] result" in shown
    assert [step["name"] for step in progress.done] == ["one"]
    assert progress.current == "two"


def test_measurement_that_was_cut_short_ends_the_demo() -> None:
    check_finished({"accuracy": 1.0})
    with pytest.raises(KeyboardInterrupt):
        check_finished({"unfinished": "interrupted after 3 of 9 rows"})
    with pytest.raises(UnavailableError, match="the server went away"):
        check_finished({"unfinished": "the server went away after 3 of 9 rows"})


def test_steps_are_named_once() -> None:
    assert len(set(STEPS)) == len(STEPS)


def test_headline_survives_a_swap_that_never_ended() -> None:
    clf = {"macro_f1": 0.5}
    qa = {"rouge_1": 0.1}
    cards = headline(
        {
            "tasks": {
                "classification": {"lora": clf, "base": clf, "full": clf, "tfidf": clf},
                "short_qa": {"lora": qa, "base": qa},
                "long_qa": {"lora": qa, "base": qa},
            },
            "storage": [
                {"kind": "full", "bytes": 1000, "ratio_to_full": 1.0},
                {"kind": "adapter", "bytes": 100, "ratio_to_full": 0.1},
            ],
            "swap": {"failed": 1, "wrong_revision": 0, "requests": 9, "seconds": {"first_new_answer": None}},
            "load": {"latency_ms": None, "requests_per_second": 0.0, "failed": 3},
        }
    )
    assert [card["value"] for card in cards] == ["0.500", "0.100", "0.100", "100 bytes", "1 failed, 0 wrong", "–"]


def test_own_server_is_reached_without_what_the_environment_says_of_others(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORADECK_TLS_CA", "authority.pem")
    monkeypatch.setenv("LORADECK_API_KEY", "of-another-server")
    ready = "print('ready inference=a:1 admin=a:2 metrics=a:3 base=b', flush=True); import time; time.sleep(60)"

    def start(name: str, arguments: list[str]) -> Child:
        return Child(name, [sys.executable, "-c", ready], workplace.logs / "server.log", grace=5.0)

    monkeypatch.setattr(workplace, "start", start)
    with serving(workplace, "main", "server") as server:
        assert server.address == "a:1"
        assert Access.from_environment() == Access()
    assert Access.from_environment() == Access(ca=Path("authority.pem"), api_key="of-another-server")


def test_server_of_a_measurement_is_started_with_its_own_settings_alone(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option of the command would win over the environment, and a bare engine would be compared with another one."""
    given: list[str] = []
    ready = "print('ready inference=a:1 admin=a:2 metrics=a:3 base=b', flush=True); import time; time.sleep(60)"

    def start(name: str, arguments: list[str]) -> Child:
        given.extend(arguments)
        return Child(name, [sys.executable, "-c", ready], workplace.logs / "server.log", grace=5.0)

    monkeypatch.setattr(workplace, "start", start)
    with serving(workplace, "main", "server"):
        assert "--set" not in given
    with serving(workplace, "main", "server", ("slots=2",)):
        assert given[-2:] == ["--set", "slots=2"]
