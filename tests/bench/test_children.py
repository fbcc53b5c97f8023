"""Children end with their parent, however it ends, and take their own children along."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loradeck_bench.children import Child, ChildFailedError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="relies on the kernel's parent-death signal")

# A command with a child of its own that ignores SIGTERM, as an engine process may.
STUBBORN = (
    "import os,signal,subprocess,sys,time\n"
    "inner=subprocess.Popen([sys.executable,'-c',"
    "'import signal,time;signal.signal(signal.SIGTERM,signal.SIG_IGN);time.sleep(120)'])\n"
    "open(sys.argv[1],'w').write(f'{os.getpid()} {inner.pid}\\n')\n"
    "time.sleep(120)\n"
)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def pids(path: Path) -> list[int]:
    wait_for(lambda: path.is_file() and path.read_text().endswith("\n"))
    return [int(pid) for pid in path.read_text().split()]


def wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_stop_takes_the_whole_family_along(tmp_path: Path) -> None:
    with Child("stubborn", [sys.executable, "-c", STUBBORN, str(tmp_path / "pids")], tmp_path / "log", grace=0.5):
        family = pids(tmp_path / "pids")
        assert all(alive(pid) for pid in family)
    # All of it was sent SIGKILL; the guard waits for its own child only.
    wait_for(lambda: not any(alive(pid) for pid in family))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_family_ends_with_a_parent_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    parent = (
        "import sys,time\nfrom pathlib import Path\nfrom loradeck_bench.children import Child\n"
        f"with Child('x',[sys.executable,'-c',{STUBBORN!r},sys.argv[1]],Path(sys.argv[2]),grace=0.5):\n"
        "    time.sleep(120)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path / "pids"), str(tmp_path / "log")], stderr=subprocess.DEVNULL
    )
    family = pids(tmp_path / "pids")
    os.kill(process.pid, number)
    process.wait(60)
    wait_for(lambda: not any(alive(pid) for pid in family))


def test_leftovers_of_a_crashed_command_are_killed(tmp_path: Path) -> None:
    crash = STUBBORN.replace("time.sleep(120)\n", "time.sleep(0.2); sys.exit(3)\n")
    with Child("crash", [sys.executable, "-c", crash, str(tmp_path / "pids")], tmp_path / "log") as child:
        family = pids(tmp_path / "pids")
        wait_for(lambda: child.poll() is not None)
        wait_for(lambda: not any(alive(pid) for pid in family))
        assert child.poll() == 3


def test_failure_shows_the_last_lines_of_the_log(tmp_path: Path) -> None:
    code = "import sys; print('step 1\\rstep 2'); print('no such thing', file=sys.stderr); sys.exit(4)"
    with Child("the step", [sys.executable, "-c", code], tmp_path / "logs" / "a.log") as child:
        wait_for(lambda: child.poll() is not None)
        with pytest.raises(ChildFailedError, match=r"the step failed \(exit code 4\)") as failure:
            child.check()
    assert "step 2" in failure.value.message
    assert "no such thing" in failure.value.message


def test_command_that_does_not_exist_is_a_failure(tmp_path: Path) -> None:
    with Child("nothing", ["/no/such/command"], tmp_path / "log") as child:
        wait_for(lambda: child.poll() is not None)
        with pytest.raises(ChildFailedError, match="cannot start /no/such/command"):
            child.check()
