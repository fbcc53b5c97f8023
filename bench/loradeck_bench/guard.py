"""`python -m loradeck_bench.guard COMMAND…`: runs a command so that nothing of it outlives whoever started the guard.

The command gets a process group of its own. When the starter dies, however it dies, or when the guard is told to stop
(SIGTERM, SIGINT), the command gets SIGTERM, some seconds to end well, and then its whole group is killed. What the
command leaves behind in its group when it ends by itself is killed too. Imports only the standard library: it starts at
once.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time

GRACE_VARIABLE = "LORADECK_GUARD_GRACE"
"""Environment variable: seconds between SIGTERM and SIGKILL, 30 by default."""
PARENT_VARIABLE = "LORADECK_GUARD_PARENT"
"""Environment variable: process id of the starter, so that its death before the guard is up is noticed too."""
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent ends (Linux). Raises SIGTERM at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def run(command: list[str], parent: int, grace: float) -> int:
    """Run `command` to its end and return its exit code, 128 + N if signal N ended it."""
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    die_with_parent(parent)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(guard)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"cannot start {command[0]}: {error}", file=sys.stderr)
            os._exit(127)
    deadline: float | None = None
    status: int | None = None
    while status is None:
        ended, found = os.waitpid(child, os.WNOHANG)
        if ended:
            status = found
        elif stopping and deadline is None:
            deadline = time.monotonic() + grace
            _signal_group(child, signal.SIGTERM, first=child)
        elif deadline is not None and time.monotonic() > deadline:
            _signal_group(child, signal.SIGKILL)
            deadline = float("inf")
        else:
            time.sleep(0.05)
    _signal_group(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _signal_group(group: int, number: signal.Signals, *, first: int | None = None) -> None:
    """Signal the group, or only its leader, which then stops its own children in its own order."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if first is not None:
            os.kill(first, number)
        else:
            os.killpg(group, number)


if __name__ == "__main__":
    starter = int(os.environ.get(PARENT_VARIABLE) or os.getppid())
    sys.exit(run(sys.argv[1:], starter, float(os.environ.get(GRACE_VARIABLE) or "30")))
