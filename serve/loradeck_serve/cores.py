"""Cores: on a CPU vLLM binds its workers to cores of their own, and the front end keeps off them.

Otherwise the front end's threads, gRPC's above all, are woken there again and again, and each time the model waits.
"""

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

_log = logging.getLogger(__name__)


class Bound(Protocol):
    """A process, as psutil shows it."""

    def cpu_affinity(self) -> list[int] | None:
        """The cores that it may run on."""


def use_all_cores(cores: Iterable[int]) -> None:
    """Let every thread of this process run on `cores` again, so that an engine started now has the choice of them."""
    _bind(frozenset(cores))


def keep_off(engine: Iterable[Bound], cores: Iterable[int]) -> frozenset[int]:
    """Move every thread of this process to those of `cores` that no process of the engine is bound to.

    A process that may run everywhere is bound to none. Returns the cores that this process uses from now on: all of
    them where nothing would be left, or where the system cannot bind.
    """
    all_cores = frozenset(cores)
    free = all_cores
    for process in engine:
        with suppress(psutil.Error, AttributeError):
            bound = frozenset(process.cpu_affinity() or ())
            if bound < all_cores:
                free -= bound
    if not free or free == all_cores:
        return all_cores
    _bind(free)
    _log.info("front end keeps off the engine's cores", extra={"cores": sorted(free)})
    return free


def present_cores() -> frozenset[int]:
    """The cores that this process may use; empty where the system does not say."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def _bind(cores: frozenset[int]) -> None:
    """Every thread there is; later ones take after the thread that makes them."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    for thread in Path("/proc/self/task").iterdir():
        # A thread may end meanwhile.
        with suppress(OSError):
            os.sched_setaffinity(int(thread.name), cores)
