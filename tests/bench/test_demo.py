"""`loradeck demo` as a user runs it: quick but whole, on the real engine; and broken off in the middle."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import loradeck_pocket

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (loradeck_pocket.BASE / "model.safetensors").is_file(), reason="the pocket base is not there"
    ),
]


@contextmanager
def start(output: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo that does not outlive its test, even one that fails."""
    command = [sys.executable, "-m", "loradeck_cli.main", "demo", "--quick", "--output", str(output)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, process_group=0)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def running_in(folder: Path) -> list[str]:
    """Command lines of processes that work on `folder`, and of everything in their process groups."""
    groups: set[int] = set()
    lines: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                group = os.getpgid(int(entry.name))
            except OSError:
                continue
            lines[int(entry.name)] = (group, line)
            if str(folder) in line:
                groups.add(group)
    return [line for group, line in lines.values() if group in groups and line]


@pytest.mark.timeout(1500)
def test_quick_demo_runs_to_its_report(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    with start(output, tmp_path / "log") as process:
        code = process.wait(1400)
    said = (tmp_path / "log").read_text()
    assert code == 0, said[-3000:]
    report: dict[str, Any] = json.loads((output / "report.json").read_text())
    assert set(report["tasks"]) == {"classification", "short_qa", "long_qa"}
    assert set(report["tasks"]["classification"]) == {"tfidf", "base", "lora", "full"}
    for models in report["tasks"].values():
        for name, figures in models.items():
            assert figures["failed"] == 0, name
            assert figures.get("answered", figures["rows"]) == 36
    assert {"accuracy", "macro_f1"} <= set(report["tasks"]["classification"]["full"])
    assert report["tasks"]["classification"]["full"]["answered_by"][0]["name"] == "clf-full"
    swap = report["swap"]
    assert (swap["failed"], swap["wrong_revision"], swap["completed"]) == (0, 0, True)
    assert swap["answered_by"].keys() == {"1", "2"}
    assert set(report["load"]["per_adapter"]) == {"(base)", "clf@prod", "qa-short@prod", "qa-long@prod"}
    assert report["load"]["failed"] == 0
    rows = {row["artifact"]: row for row in report["storage"]}
    assert set(rows) == {"pocket@1", "clf-full@1", "clf@1", "clf@2", "qa-short@1", "qa-long@1"}
    assert rows["clf@1"]["ratio_to_full"] < 0.2
    assert set(report["training"]) == {"clf@1", "clf@2", "clf-full@1", "qa-short@1", "qa-long@1"}
    assert len(report["answers"]) == 3
    page = (output / "report.html").read_text()
    assert not re.search(r"https?://", page)
    assert page.count("data:image/svg+xml") >= 9
    assert "[10/10] Write the report" in said
    assert not running_in(output)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_broken_off_demo_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "demo"
    deadline = time.monotonic() + 240
    with start(output, tmp_path / "log") as process:
        # The log is there before the child that writes it.
        while len(running_in(output)) <= 2 or not list(output.glob("logs/train-*.log")):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.1)
        process.send_signal(number)
        code = process.wait(120)
    deadline = time.monotonic() + 60
    while (left := running_in(output)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    if number is not signal.SIGKILL:
        assert code == 130
        assert "interrupted in the step" in json.loads((output / "report.json").read_text())["unfinished"]
