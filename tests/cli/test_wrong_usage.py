"""What the command line says to what it does not understand or cannot find: one line and an exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

LORADECK = [sys.executable, "-m", "loradeck_cli.main"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`loradeck` as its own process."""
    return subprocess.run([*LORADECK, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_misspelt_command_gets_the_nearest_one() -> None:
    done = run("regitry")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("no such command 'regitry': did you mean registry?")


def test_command_near_nothing_gets_the_list() -> None:
    done = run("xyzzy")
    assert done.returncode == 2
    assert "the commands are train, registry, serve" in done.stderr


@pytest.mark.parametrize("command", [["classify"], ["short", "What?"], ["long", "What?"], ["generate"]])
def test_missing_file_of_a_query_is_one_line_and_a_failure(tmp_path: Path, command: list[str]) -> None:
    done = run("query", *command, "--file", str(tmp_path / "no.txt"), "--server", "127.0.0.1:1")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line == f"error: cannot read {tmp_path / 'no.txt'}: No such file or directory"


def test_file_that_is_no_text_is_one_line_and_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    done = run("query", "classify", "--file", str(path), "--server", "127.0.0.1:1")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line == f"error: {path} is not UTF-8 text: convert it first"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "server configuration: `base` is required (--base)"),
        (["serve", "--config", "no.yaml"], "cannot read the configuration no.yaml: No such file or directory"),
        (["serve", "--base", "pocket:base", "--set", "slots"], "--set takes KEY=VALUE, not 'slots'"),
        (["serve", "--base", "pocket:base", "--set", "slots=["], "--set slots: the value is not YAML"),
        (["query", "generate", "--field", "a"], "--field takes NAME=TEXT, not 'a'"),
        (["query", "generate", "Hello", "--field", "a=b"], "give either --field values, or a message"),
    ],
)
def test_a_wrong_setting_is_one_line(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line == f"error: {said}"


@pytest.mark.parametrize("options", [["--wait", "nan"], ["--timeout", "nan"], ["--timeout", "-1"], ["--wait", "-1"]])
def test_a_time_that_never_comes_is_refused(options: list[str]) -> None:
    done = run("health", "--server", "127.0.0.1:1", *options)
    assert done.returncode == 2
    assert f"Invalid value for '{options[0]}'" in done.stderr


def test_a_url_is_no_address_of_a_server() -> None:
    done = run("query", "classify", "A text", "--server", "http://127.0.0.1:8500")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: http://127.0.0.1:8500 is a URL: give host:port")


@pytest.mark.parametrize(
    ("option", "said"), [("--tls-ca", "does not hold the authority's certificate"), ("--api-key-file", "is empty")]
)
def test_files_without_credentials_are_told_before_anybody_is_asked(tmp_path: Path, option: str, said: str) -> None:
    path = tmp_path / "file"
    path.touch()
    done = run("query", "classify", "A text", "--server", "127.0.0.1:1", option, str(path))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert said in line


def test_a_folder_as_a_base_is_told_how_to_be_named(tmp_path: Path) -> None:
    run("registry", "init", "--registry", str(tmp_path / "registry"))
    done = run("registry", "add-base", "base", "./model", "--registry", str(tmp_path / "registry"))
    assert done.returncode == 2
    assert done.stderr.strip() == "error: bad base './model': a folder is named as dir:./model"


@pytest.mark.parametrize("option", ["--file", "--out"])
def test_keys_that_cannot_be_written_are_one_line(tmp_path: Path, option: str) -> None:
    files = {"--file": tmp_path / "keys.json"} | {option: Path("/proc/no/file")}
    done = run("keys", "add", "web", *(str(part) for pair in files.items() for part in pair))
    assert done.returncode in (1, 2)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: cannot write /proc/no/file: ")
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.parametrize("server", ["", "http://127.0.0.1:8500"])
def test_health_of_what_is_no_address(server: str) -> None:
    done = run("health", "--server", server)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "give host:port" in line
