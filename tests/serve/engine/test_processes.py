"""Watching a process from one that is not its parent."""

import os
import pickle
import subprocess
import sys
import threading

import pytest

from loradeck_serve.engine import processes


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.parametrize("descriptors", [True, False])
def test_waiting_ends_with_the_process_and_not_before(monkeypatch, descriptors) -> None:
    if not descriptors:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    child = sleeper()
    waiter = threading.Thread(target=processes.wait_for_end, args=(child.pid,), daemon=True)
    waiter.start()
    waiter.join(1)
    assert waiter.is_alive()
    child.kill()
    waiter.join(10)
    assert not waiter.is_alive()
    child.wait()


def test_waiting_for_a_process_that_is_gone_ends_at_once() -> None:
    child = sleeper()
    child.kill()
    child.wait()
    processes.wait_for_end(child.pid)


def test_a_closed_descriptor_is_not_taken_for_the_end(monkeypatch) -> None:
    child = sleeper()
    closed = threading.Event()
    original = processes._wait_on_descriptor

    def wait_on_closed(pid: int) -> None:
        if not closed.is_set():
            closed.set()
            return
        original(pid)

    monkeypatch.setattr(processes, "_wait_on_descriptor", wait_on_closed)
    waiter = threading.Thread(target=processes.wait_for_end, args=(child.pid,), daemon=True)
    waiter.start()
    assert closed.wait(5)
    waiter.join(1)
    assert waiter.is_alive()
    child.kill()
    child.wait()
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_tethered_process_ends_with_the_one_it_is_tied_to() -> None:
    leader = sleeper()
    tether = pickle.dumps(processes.Tether("tied", leader.pid))
    program = f"import pickle, time; pickle.loads({tether!r}); print('tied', flush=True); time.sleep(60)"
    follower = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"tied\n"
    assert follower.poll() is None
    leader.kill()
    leader.wait()
    assert follower.wait(timeout=10) < 0
    follower.stdout.close()


def test_a_tether_is_the_same_text_for_every_process() -> None:
    assert processes.Tether("tied", 1) == processes.Tether("tied", 2) == "tied"
    here = pickle.loads(pickle.dumps(processes.Tether("tied")))
    assert here.pid == os.getpid()
