"""A process that reads a registry for months, and writers who mean harm: what is kept and what is read has bounds."""

import json
from pathlib import Path

import pytest

from loradeck_registry import log, remembering
from loradeck_registry.errors import DamagedError, NotFoundError, PreconditionError
from loradeck_registry.parts import reading
from loradeck_registry.registry import Registry
from loradeck_registry.servability.adapter import _check_config
from loradeck_registry.stores import store as stores
from loradeck_registry.weights import Weights


def test_names_that_nobody_has_are_not_kept_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "KEPT_LOGS", 20)
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    for number in range(100):
        with pytest.raises(NotFoundError):
            registry.resolve(f"nobody-{number}@alias-{number}")
        assert registry.aliases(f"nobody-{number}") == {}
    assert len(registry._revision_logs) <= 20
    assert len(registry._alias_logs) <= 20


def test_what_was_read_first_goes_first() -> None:
    known: dict[int, str] = {}
    for number in range(10):
        assert remembering.remember(known, number, str(number), 3) == str(number)
    assert known == {7: "7", 8: "8", 9: "9"}


def test_entries_of_a_long_log_are_not_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "KEPT", 5)
    store = stores.Store(str(tmp_path), None, folder=tmp_path)  # type: ignore[arg-type]
    numbered = log.NumberedLog(store, "log")
    for number in range(1, 21):
        assert numbered.append(number, {"value": number})
    assert [numbered.read(number)["value"] for number in range(1, 21)] == list(range(1, 21))
    assert numbered.read(1)["value"] == 1
    assert len(numbered._entries) <= 5


def test_an_object_too_large_for_a_record_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MOST_BYTES", 1 << 20)
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    path = tmp_path / "registry" / "large"
    path.write_bytes(b"x" * (1 << 20))
    assert len(registry._store.get("large")) == 1 << 20
    path.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(DamagedError, match="1 MiB"):
        registry._store.get("large")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"r": ' + "[" * 100_000, '{"r": 8, "x": "' + "y" * (1 << 20) + '"}']
)
def test_a_configuration_without_bottom_or_end_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(content)
    with pytest.raises(PreconditionError) as raised:
        _check_config(path, None)  # type: ignore[arg-type]
    assert raised.value.reason == "CONFIG_UNSUPPORTED"


def test_a_header_without_bottom_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    for header in (
        b"[" * 100_000,
        json.dumps({"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}).encode(),
    ):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(Exception, match="safetensors") as raised:
            Weights(path)
        assert not isinstance(raised.value, (RecursionError, OverflowError))
