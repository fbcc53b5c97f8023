"""The front end keeps off the cores that the engine's workers are bound to."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from loradeck_serve.cores import keep_off, present_cores, use_all_cores

CORES = present_cores()
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores to choose from")


@dataclass
class Process:
    """One that says where it is bound."""

    cores: list[int]

    def cpu_affinity(self) -> list[int]:
        return self.cores


@pytest.fixture(autouse=True)
def bound_back() -> Iterator[None]:
    """Whatever a test does, this process ends where it began."""
    yield
    use_all_cores(CORES)


def everywhere() -> set[frozenset[int]]:
    """Where the threads of this process may run."""
    return {frozenset(os.sched_getaffinity(int(name))) for name in os.listdir("/proc/self/task")}


def test_every_thread_leaves_the_workers_cores_and_comes_back() -> None:
    worker = min(CORES)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        free = keep_off([Process(sorted(CORES)), Process([worker])], CORES)
        assert free == CORES - {worker}
        assert everywhere() == {free}
        use_all_cores(CORES)
        assert everywhere() == {CORES}
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("engine", [[], [Process(sorted(CORES))], [Process([core]) for core in sorted(CORES)]])
def test_where_nothing_is_bound_or_nothing_left_all_cores_are_used(engine: list[Process]) -> None:
    assert keep_off(engine, CORES) == CORES
    assert everywhere() == {CORES}
