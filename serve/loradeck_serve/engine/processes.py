"""No engine process outlives the server: each one watches the processes that it belongs to.

vLLM's engine runs in processes of its own, and a front end that is killed leaves them behind for minutes. The plugin
calls `exit_with` in each of them; the kernel then tells it of the death, however it came, without polling.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any

STOP_SECONDS = 5.0
"""How long an engine may take to end on request before its processes are killed."""

POLL_SECONDS = 0.5
"""How often a process is looked up where the kernel cannot report its end (no pidfd)."""


def exit_with(pids: Iterable[int]) -> None:
    """End this process at once, by SIGKILL, when any of `pids` has ended. Returns immediately."""
    for pid in pids:
        threading.Thread(target=_wait_and_exit, args=(pid,), daemon=True, name=f"watch-{pid}").start()


def ignore_interrupt() -> None:
    """Leave Ctrl+C, which a terminal sends to every process of the group, to the front end.

    The front end stops the engine in order once its running requests have ended. Does nothing outside of the main
    thread, where Python does not allow it.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _wait_and_exit(pid: int) -> None:
    wait_for_end(pid)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_end(pid: int) -> None:
    """Return when process `pid`, of any parentage, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        _poll_for_end(pid)
        return
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while not poller.poll():
            pass
    finally:
        os.close(descriptor)


def _poll_for_end(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        except PermissionError:
            pass
        time.sleep(POLL_SECONDS)


def engine_processes(llm: Any) -> list[Any]:
    """The living processes (psutil) of one AsyncLLM: its engine cores and all that these have started."""
    import psutil

    manager = getattr(llm.engine_core.resources, "engine_manager", None)
    found: list[Any] = []
    for core in getattr(manager, "processes", []):
        try:
            process = psutil.Process(core.pid)
            found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def end_engine(llm: Any, children: Iterable[Any]) -> None:
    """Shut an AsyncLLM down and return when none of `children` (psutil processes) is left. Blocks."""
    import psutil

    try:
        llm.shutdown(timeout=STOP_SECONDS)
    finally:
        _, alive = psutil.wait_procs(list(children), timeout=STOP_SECONDS)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=STOP_SECONDS)
