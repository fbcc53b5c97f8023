"""No engine process outlives the server: each one watches the processes that it belongs to.

vLLM's engine runs in processes of its own, and a front end that is killed leaves them behind for minutes, or for good
if they were just starting. A `Tether` in the engine's configuration reaches each of them as the first thing of ours;
the kernel then tells it of the front end's death, however it came, without polling.
"""

import fcntl
import os
import select
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

STOP_SECONDS = 10.0
"""How long an engine may take to end on request before its processes are killed."""

HIGH_DESCRIPTOR = 200
"""Lowest number for a descriptor that must not collide with vLLM's."""

POLL_SECONDS = 0.5
"""How often a process is looked up where the kernel cannot report its end (no pidfd)."""


class Tether(str):
    """A text that ties every process it is sent to to the process it was made in.

    Where it is unpickled, `exit_with` is called with the maker's process id and with the parent's. The process ids are
    no part of the text, so that they do not change the hash of a configuration that it is part of.
    """

    __slots__ = ("pid",)
    pid: int

    def __new__(cls, text: str, pid: int | None = None) -> "Tether":
        """Tie to process `pid`, or to this one."""
        tether = super().__new__(cls, text)
        tether.pid = os.getpid() if pid is None else pid
        return tether

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (str(self), self.pid)


def _arrive(text: str, pid: int) -> Tether:
    if pid != os.getpid():
        exit_with({pid, os.getppid()} - {0, 1})
    return Tether(text, pid)


_watched: set[int] = set()


def exit_with(pids: Iterable[int]) -> None:
    """End this process at once, by SIGKILL, when any of `pids` has ended. Returns immediately."""
    for pid in set(pids) - _watched:
        _watched.add(pid)
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
    while is_running(pid):
        try:
            _wait_on_descriptor(pid)
        except ProcessLookupError:
            return
        except (AttributeError, OSError):
            time.sleep(POLL_SECONDS)


def _wait_on_descriptor(pid: int) -> None:
    """Sleep until the kernel reports something about `pid`; it need not be its end.

    vLLM's workers close the numbers of descriptors that they believe to have inherited, ours may be among them: hence
    a high number, and a second look by the caller.
    """
    first = os.pidfd_open(pid)
    try:
        descriptor = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR)
    finally:
        os.close(first)
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    events = poller.poll()
    if not any(event & select.POLLNVAL for _, event in events):
        os.close(descriptor)


def is_running(pid: int) -> bool:
    """Whether `pid` is a process that has not ended (one that only waits to be collected has)."""
    try:
        # The state follows the name, which is in brackets and may itself hold any character.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return state not in "ZX"


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


def forget_engine(llm: Any) -> None:
    """Close what an ended AsyncLLM keeps open, and let its object go without a second shutdown.

    Python may collect the object as late as at the end of the interpreter, where vLLM's own clean-up fails.
    """
    llm.shutdown = _nothing
    with suppress(Exception):
        llm.engine_core.resources.ctx.destroy(linger=0)


def _nothing(*_: Any, **__: Any) -> None:
    """Stand in for a method that has nothing left to do."""
