"""The server's configuration: file, environment, command line, and what is refused."""

import re
from pathlib import Path

import pytest
import yaml

from loradeck_registry.errors import InvalidError
from loradeck_serve.config import Address, ServerConfig, load_config


def test_command_line_wins_over_environment_over_file(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("base: dir:file\nslots: 2\nhost_adapters: 8\nlimits:\n  queue: 7\n  max_tokens: 5\n")
    environment = {"LORADECK_SERVE_SLOTS": "3", "LORADECK_SERVE_LIMITS__QUEUE": "9", "OTHER": "x"}
    config = load_config(path, {"base": "dir:line", "registry": None}, environment)
    assert (config.base, config.slots, config.host_adapters) == ("dir:line", 3, 8)
    assert (config.limits.queue, config.limits.max_tokens) == (9, 5)


def test_doors_are_on_loopback_and_apart_by_default() -> None:
    config = load_config(None, {"base": "dir:x"}, {})
    doors = (config.inference, config.admin, config.metrics)
    assert all(door.is_loopback for door in doors)
    assert len({door.port for door in doors}) == 3


def test_host_or_port_alone_leaves_the_other_as_it_is(tmp_path: Path) -> None:
    assert (
        str(load_config(None, {"base": "dir:x", "inference.host": "0.0.0.0", "insecure": True}, {}).inference)
        == "0.0.0.0:8500"
    )
    path = tmp_path / "serve.yaml"
    path.write_text("base: dir:x\ninsecure: true\ninference: 0.0.0.0:80\nadmin: {port: 81}\nmetrics: {host: '::1'}\n")
    config = load_config(path, {"inference.port": 90}, {"LORADECK_SERVE_ADMIN__HOST": "localhost"})
    doors = (config.inference, config.admin, config.metrics)
    assert [str(door) for door in doors] == ["0.0.0.0:90", "localhost:81", "[::1]:8502"]


def test_one_adapter_leaves_room_whatever_the_engine_is_bound_to() -> None:
    def bound(**limits: int) -> int:
        settings = {f"limits.{name}": value for name, value in limits.items()}
        return load_config(None, {"base": "dir:x", **settings}, {}).limits.concurrent_per_adapter

    assert (bound(), bound(concurrent=100), bound(concurrent=1)) == (192, 75, 1)
    assert bound(concurrent=100, concurrent_per_adapter=100) == 100


def test_engine_map_takes_any_option() -> None:
    config = load_config(None, {"base": "dir:x", "engine.dtype": "float32", "engine.block_size": 32}, {})
    assert config.engine == {"dtype": "float32", "block_size": 32}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "`base` is required (--base)"),
        ({"base": "dir:x", "slot": 3}, "unknown key `slot` (did you mean `slots`?)"),
        ({"base": "dir:x", "limits.queu": 3}, "unknown key `limits.queu` (did you mean `queue`?)"),
        ({"base": "dir:x", "slots": 9, "host_adapters": 3}, "`host_adapters` (3) must be at least `slots` (9)"),
        ({"base": "dir:x", "max_rank": 10}, "`max_rank` must be one of 1, 8, 16"),
        ({"base": "dir:x", "watch_interval_seconds": 5}, "watch_interval_seconds"),
        ({"base": "dir:x", "inference": "0.0.0.0:x"}, "use host:port"),
        ({"base": "dir:x", "inference": "nowhere", "inference.port": 3}, "use host:port"),
        ({"base": "dir:x", "admin": "0.0.0.0:9"}, "`allow_remote_admin`"),
        ({"base": "dir:x", "inference": "0.0.0.0:9"}, "`insecure`"),
        ({"base": "dir:x", "metrics": "[::]:9"}, "`metrics` listens beyond this machine in plaintext"),
        (
            {
                "base": "dir:x",
                "metrics": "[::]:9",
                "tls": {"certificate": "c", "key": "k", "doors": ["inference"]},
            },
            "`metrics` listens beyond this machine in plaintext",
        ),
        ({"base": "dir:x", "inference": 7, "admin": 7}, "need ports of their own"),
        ({"base": "dir:x", "pins": ["a"]}, "`pins` need a `registry`"),
        ({"base": "dir:x", "registry": "r", "pins": ["A!"]}, "bad adapter name"),
        ({"base": "dir:x", "fairness.weights": {"a": 0}}, "greater than 0"),
        ({"base": "dir:x", "limits.max_deadline_seconds": 1}, "must not exceed"),
        ({"base": "not a name"}, "bad adapter name"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidError) as raised:
        load_config(None, settings, {})
    assert message in raised.value.message
    assert "\n" not in raised.value.message


def test_broken_variable_is_named() -> None:
    with pytest.raises(InvalidError) as raised:
        load_config(None, {"base": "dir:x"}, {"LORADECK_SERVE_LIMITS": "[1"})
    assert "LORADECK_SERVE_LIMITS" in raised.value.message
    assert "\n" not in raised.value.message


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"nothing\.yaml"):
        load_config(tmp_path / "nothing.yaml", {}, {})
    broken = tmp_path / "broken.yaml"
    broken.write_text("base: [")
    with pytest.raises(InvalidError, match="is not YAML") as raised:
        load_config(broken, {}, {})
    assert "\n" not in raised.value.message


def test_documented_example_is_valid() -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert examples
    for example in examples:
        ServerConfig.model_validate(yaml.safe_load(example))


def test_addresses_are_read_and_written() -> None:
    assert str(Address.parse("127.0.0.1:80")) == "127.0.0.1:80"
    assert str(Address.parse("[::1]:80")) == "[::1]:80"
    assert Address.parse("80") == Address(host="127.0.0.1", port=80)
    assert not Address.parse("0.0.0.0:1").is_loopback
