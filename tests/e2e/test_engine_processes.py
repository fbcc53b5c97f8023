"""No process of an engine outlives its front end, however that ends and whenever."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.tiny import make_tiny_base

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

FRONT_END = """
import asyncio, sys
from pathlib import Path
from loradeck_serve.engine.settings import EngineSettings
from loradeck_serve.engine.vllm_engine import VllmEngine

async def main():
    settings = EngineSettings(model=Path(sys.argv[1]), slots=0, kv_cache_gib=0.1, max_model_len=64, enforce_eager=True)
    engine = await VllmEngine.start(settings)
    print("ready", flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


def engine_of(front_end: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes that the front end has started so far, without Python's own resource tracker."""
    children = psutil.Process(front_end.pid).children(recursive=True)
    return [child for child in children if (said := words(child)) and "resource_tracker" not in said]


def words(process: psutil.Process) -> str:
    """Its name and command line; empty when it has ended meanwhile."""
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""


def wait_until_gone(children: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of `children` that still run after `seconds`."""
    return psutil.wait_procs(children, timeout=seconds)[1]


@pytest.fixture
def front_end(tmp_path):
    """A front end that starts an engine; whatever is left of either is killed afterwards."""
    base = make_tiny_base(tmp_path / "base")
    script = tmp_path / "front_end.py"
    script.write_text(FRONT_END)
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([sys.executable, str(script), str(base)], stdout=subprocess.PIPE, stderr=log, text=True)
    seen: list[psutil.Process] = []
    yield process, seen
    for left in [process, *seen]:
        if left.poll() is None if isinstance(left, subprocess.Popen) else left.is_running():
            left.kill()
    process.wait()
    process.stdout.close()
    log.close()


def test_killing_a_running_front_end_leaves_no_process(front_end) -> None:
    process, seen = front_end
    assert process.stdout.readline() == "ready\n"
    seen += engine_of(process)
    assert len(seen) >= 2
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert wait_until_gone(seen, 60) == []


def test_killing_a_starting_front_end_leaves_no_process(front_end) -> None:
    process, seen = front_end
    deadline = time.monotonic() + 120
    while not seen and time.monotonic() < deadline:
        time.sleep(0.05)
        seen += engine_of(process)
    assert seen
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The engine's process first has to finish importing before anything can tell it.
    assert wait_until_gone(seen, 180) == []


@pytest.mark.parametrize("front_end_signal", [signal.SIGINT])
def test_interrupt_of_the_whole_group_is_left_to_the_front_end(front_end, front_end_signal) -> None:
    process, seen = front_end
    assert process.stdout.readline() == "ready\n"
    seen += engine_of(process)
    for child in seen:
        child.send_signal(front_end_signal)
    assert len(wait_until_gone(seen, 2)) == len(seen)
    process.send_signal(front_end_signal)
    process.wait(timeout=60)
    assert wait_until_gone(seen, 60) == []
