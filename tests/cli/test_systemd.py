"""The message to systemd, received by a socket as systemd's."""

import socket
from pathlib import Path

import pytest

from loradeck_cli.systemd import notify_systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_reaches_the_service_manager(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"loradeck-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else str(tmp_path / "s"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else str(tmp_path / "s"))
        notify_systemd("READY=1")
        assert manager.recv(64) == b"READY=1"


@pytest.mark.parametrize("path", ["", "/nowhere/at/all"])
def test_no_service_manager_is_no_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify_systemd("READY=1")
