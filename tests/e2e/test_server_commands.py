"""`loradeck query` and `loradeck adapters` against the real server."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loradeck_cli.main import loradeck
from loradeck_registry.errors import LoradeckError
from tests.e2e.conftest import LORADECK, Served
from tests.serve.deck import LABELS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TEXT = "The bank opened a branch."


def query(server: Served, *arguments: str, text: str | None = None) -> Result:
    """`loradeck query`, which must succeed."""
    done = CliRunner().invoke(loradeck, ["query", *arguments, "--server", server.inference], input=text)
    assert done.exit_code == 0, done.output
    return done


def adapters(server: Served, *arguments: str) -> Result:
    """`loradeck adapters`."""
    return CliRunner().invoke(loradeck, ["adapters", *arguments, "--server", server.admin])


def test_classify_shows_labels_and_who_answered(server: Served) -> None:
    done = query(server, "classify", TEXT, "--adapter", "clf@1")
    labels = [line.split()[0] for line in done.stdout.strip().splitlines()]
    assert sorted(labels) == sorted(LABELS)
    assert "clf@1" in done.stderr
    two = query(server, "classify", "--adapter", "clf", "--label", "Health", "--label", "Economy", text=TEXT)
    assert {line.split()[0] for line in two.stdout.strip().splitlines()} == {"Health", "Economy"}


def test_text_comes_from_argument_file_or_standard_input(server: Served, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    replies = [
        query(server, "classify", TEXT, "--adapter", "clf").stdout,
        query(server, "classify", "--file", str(path), "--adapter", "clf").stdout,
        query(server, "classify", "--adapter", "clf", text=TEXT).stdout,
    ]
    assert len(set(replies)) == 1


def test_answers_and_generation_are_printed_and_written_as_json(server: Served, tmp_path: Path) -> None:
    path = tmp_path / "reply.json"
    short = query(server, "short", "What?", "--context", TEXT, "--adapter", "short", "--json", str(path))
    reply = json.loads(path.read_text())
    assert short.stdout.rstrip("\n") == reply["text"]
    assert reply["provenance"]["adapter"] == "short"
    long = query(server, "long", "What?", "--context", TEXT, "--adapter", "long", "--max-tokens", "5", "--json", "-")
    assert json.loads(long.stdout)["usage"]["output_tokens"] == 5
    free = query(server, "generate", "--adapter", "free", "--field", "what=a", "--field", "topic=b=c", "--json", "-")
    assert json.loads(free.stdout)["provenance"]["adapter"] == "free"
    raw = query(server, "generate", "The", "--raw", "--max-tokens", "3", "--json", "-")
    assert json.loads(raw.stdout)["usage"]["output_tokens"] == 3


def test_errors_are_one_line_and_exit_codes_tell_them_apart(server: Served) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*LORADECK, "query", *arguments, "--server", server.inference]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    unknown = run("classify", TEXT, "--adapter", "clg")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.strip().startswith("error: ")
    assert "did you mean" in unknown.stderr
    assert len(unknown.stderr.strip().splitlines()) == 1
    assert run("classify", TEXT, "--adapter", "clf@@").returncode == 2
    assert run("generate", "--field", "x").returncode == 2


def test_operators_commands(server: Served) -> None:
    loaded = adapters(server, "load", "clf@2", "--json", "-")
    assert json.loads(loaded.stdout)["state"] == "loaded"
    pinned = adapters(server, "pin", "clf@2", "--json", "-")
    assert json.loads(pinned.stdout)["pinned"] is True
    refused = adapters(server, "unload", "clf@2")
    assert isinstance(refused.exception, LoradeckError)
    assert refused.exception.reason == "PINNED"
    assert json.loads(adapters(server, "unpin", "clf@2", "--json", "-").stdout)["pinned"] is False
    assert json.loads(adapters(server, "unload", "clf@2", "--json", "-").stdout)["state"] == "cached"
    table = adapters(server, "list").stdout
    assert "clf@2" in table
    listed = json.loads(adapters(server, "list", "--json", "-").stdout)["adapters"]
    assert {"clf"} <= {adapter["name"] for adapter in listed}
    fits = json.loads(adapters(server, "capacity", "--rank", "8", "--json", "-").stdout)
    assert (fits["slots"], fits["host_adapters"], fits["max_rank"]) == (4, 8, 16)
    assert fits["cache_adapters"] == fits["cache_free_bytes"] // fits["adapter_size_bytes"]


def test_watch_shows_changes_until_interrupted(server: Served) -> None:
    command = [*LORADECK, "adapters", "watch", "free", "--server", server.admin, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        adapters(server, "load", "free")
        assert json.loads(watch.stdout.readline())["adapter"]["name"] == "free"
        adapters(server, "unload", "free")
        states = []
        while "cached" not in states:
            states.append(json.loads(watch.stdout.readline())["adapter"]["state"])
        watch.send_signal(signal.SIGINT)
        assert watch.wait(20) == 130
