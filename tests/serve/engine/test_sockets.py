"""Folders for sockets: one's own, and those of owners that are gone."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from loradeck_serve.engine import sockets
from loradeck_serve.engine.sockets import PREFIX, VARIABLE, SocketFolder

OWNER = """
import time
from loradeck_serve.engine.sockets import SocketFolder
print(SocketFolder().path, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A temporary folder with a short path and a tidy-up that does not wait."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr(sockets, "SETTLED_SECONDS", 0.0)
        yield folder


@pytest.fixture
def owner():
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    yield process, process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_is_there_until_it_is_removed() -> None:
    folder = SocketFolder()
    assert folder.environment() == {VARIABLE: str(folder.path)}
    assert folder.path.is_dir()
    path = folder.path
    folder.remove()
    folder.remove()
    assert not path.exists()


def test_the_folder_of_a_living_owner_stays(owner) -> None:
    _, path = owner
    SocketFolder().remove()
    assert os.path.isdir(path)


def test_the_folder_of_a_killed_owner_goes_with_the_next_start(owner) -> None:
    process, path = owner
    open(os.path.join(path, "some-socket"), "w").close()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.isdir(path)
    SocketFolder().remove()
    assert not os.path.exists(path)


def test_a_young_folder_stays_whoever_owns_it(monkeypatch, temporary) -> None:
    monkeypatch.setattr(sockets, "SETTLED_SECONDS", 60.0)
    os.mkdir(os.path.join(temporary, f"{PREFIX}being-made"))
    SocketFolder().remove()
    assert os.path.isdir(os.path.join(temporary, f"{PREFIX}being-made"))


def test_a_temporary_folder_with_too_long_a_path_is_left_to_vllm(monkeypatch, temporary) -> None:
    long = os.path.join(temporary, "x" * 60)
    os.mkdir(long)
    monkeypatch.setattr(tempfile, "tempdir", long)
    folder = SocketFolder()
    assert folder.path is None
    assert folder.environment() == {}
    assert os.listdir(long) == []
    folder.remove()
