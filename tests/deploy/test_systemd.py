"""The systemd unit: systemd reads it, its command exists, and it is confined."""

import re
import shlex
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from loradeck_serve.config import ServerConfig
from tests.deploy.tools import DEPLOY, accepts, program, run

UNIT = DEPLOY / "systemd" / "loradeck-serve.service"
MOST_EXPOSED = 2.5
"""On systemd's scale from 0 to 10, where 10 is an ordinary service of root."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here in place of the installed one: systemd looks for it."""
    found = tmp_path / UNIT.name
    found.write_text(re.sub(r"/opt/loradeck/bin/loradeck", sys.executable, UNIT.read_text()))
    return found


def test_systemd_accepts_the_unit(unit: Path) -> None:
    said = run(program("systemd-analyze", "part of systemd"), "verify", "--man=no", unit)
    assert UNIT.name not in said


def test_service_is_confined(unit: Path) -> None:
    said = run(program("systemd-analyze", "part of systemd"), "security", "--offline=yes", "--no-pager", unit)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert level is not None, said
    assert float(level[1]) <= MOST_EXPOSED


def test_command_exists_and_a_stop_gets_the_time_that_draining_takes() -> None:
    parser = RawConfigParser(strict=False)
    parser.read_string(UNIT.read_text())
    service = parser["Service"]
    command, *words = shlex.split(service["ExecStart"])
    assert command == "/opt/loradeck/bin/loradeck"
    accepts(words)
    drain = ServerConfig.model_fields["drain_seconds"].default
    assert int(service["TimeoutStopSec"]) >= drain + 15
    assert service["KillMode"] == "mixed"
