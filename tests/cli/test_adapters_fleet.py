"""`loradeck adapters move --wait` and `adapters servers`: what people and programs are told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loradeck_cli.adapters.group import command
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from tests.registry.support import push
from tests.registry.test_fleet import talking


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two revisions, `prod` on the first; named by the environment."""
    monkeypatch.setenv("LORADECK_CACHE", str(tmp_path / "cache"))
    made = Registry.init(tmp_path / "registry")
    push(made, tmp_path / "one", seed=1, alias="prod")
    push(made, tmp_path / "two", seed=2)
    monkeypatch.setenv("LORADECK_REGISTRY", made.url)
    return made


def test_move_shows_each_server_and_what_came_of_it(registry: Registry) -> None:
    with talking(registry, "a"), talking(registry, "b"):
        done = CliRunner().invoke(command, ["move", "clf", "prod", "2", "--wait", "--expect", "1", "--timeout", "20"])
    assert done.exit_code == 0, done.output
    assert done.output.count("flipped") == 2
    assert "clf@prod: revision 1 -> revision 2" in done.output
    assert "on 2 servers" in done.output


def test_refused_move_is_one_line_with_every_reason_and_whole_in_json(registry: Registry, tmp_path: Path) -> None:
    output = tmp_path / "moved.json"
    with talking(registry, "a"), talking(registry, "b", "refused"):
        done = CliRunner().invoke(
            command, ["move", "clf", "prod", "2", "--wait", "--timeout", "20", "--json", str(output)]
        )
    assert isinstance(done.exception, PreconditionError)
    assert done.exception.reason == "FLEET_REFUSED"
    assert "stays at revision 1" in done.exception.message
    assert "NO_HOST_ROOM" in done.exception.message
    assert "\n" not in done.exception.message
    told = json.loads(output.read_text())
    assert (told["moved"], told["previous_revision"]) == (False, 1)
    assert {s["server"][0]: (s["state"], s["reason"]) for s in told["servers"]} == {
        "a": ("ready", ""), "b": ("refused", "NO_HOST_ROOM"),
    }  # fmt: skip


def test_servers_are_listed(registry: Registry) -> None:
    assert "no server" in CliRunner().invoke(command, ["servers"]).output
    with talking(registry, "host-1"):
        done = CliRunner().invoke(command, ["servers"])
        told = json.loads(CliRunner().invoke(command, ["servers", "--json", "-"]).output)
    assert "host-1" in done.output
    assert "heard of" in done.output
    assert [server["base"] for server in told["servers"]] == ["base"]


def test_one_server_and_all_servers_are_not_asked_at_once(registry: Registry) -> None:
    done = CliRunner().invoke(command, ["move", "clf", "prod", "2", "--wait", "--server", "127.0.0.1:1"])
    assert done.exit_code == 2
    assert "leave --server out" in done.output


def test_registry_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORADECK_REGISTRY", raising=False)
    done = CliRunner().invoke(command, ["move", "clf", "prod", "2", "--wait"])
    assert done.exit_code == 2
    assert "--registry" in done.output
