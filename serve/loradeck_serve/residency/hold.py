"""What this server uses, kept from the registry's garbage collection by leases that it renews."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from loradeck_registry.collection.leases import TTL, Lease
from loradeck_registry.errors import LoradeckError
from loradeck_registry.registry import Registry

_log = logging.getLogger(__name__)

RENEW_SECONDS = TTL / 3
_THREADS = 4
"""A lease waits for a deletion that is going on; others must not wait behind it."""


class _Held:
    """One revision's lease, and the lock that keeps two threads from using it at once."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.lock = threading.Lock()
        self.wanted = True


class RegistryHold:
    """A lease in the registry for each revision that is loaded or being loaded. Methods run on one event loop.

    Nothing here keeps an adapter from being served: a registry that may only be read, or that cannot be reached, is
    said once in the log, and the lease is tried for again at each renewal.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._holder = f"server-{socket.gethostname()}-{os.getpid()}"
        self._held: dict[str, _Held] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="leases")
        self._warned = False
        self._background: set[asyncio.Task[None]] = set()

    async def take(self, digest: str) -> None:
        """Return once the revision's lease is in force, if there can be one. A lease that is held is renewed."""
        held = self._held.setdefault(digest, _Held())
        await asyncio.get_running_loop().run_in_executor(self._threads, self._renew, digest, held)

    def begin(self, digest: str) -> None:
        """Take the lease while nobody waits for it: for files that are here already."""
        self._start(self.take(digest))

    def release(self, digest: str) -> None:
        """End the revision's lease, in the background. Idempotent."""
        if (held := self._held.pop(digest, None)) is not None:
            self._start(self._end(held))

    async def run(self, needed: Callable[[], Collection[str]], seconds: float = RENEW_SECONDS) -> None:
        """Renew what is `needed` and release what is not, every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            wanted = set(needed())
            for digest in self._held.keys() - wanted:
                self.release(digest)
            await asyncio.gather(*map(self.take, wanted))

    async def close(self) -> None:
        """Release everything."""
        for digest in list(self._held):
            self.release(digest)
        await asyncio.gather(*self._background, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _renew(self, digest: str, held: _Held) -> None:
        with held.lock:
            if not held.wanted:
                return
            try:
                if held.lease is None:
                    held.lease = self._registry.hold([digest], self._holder)
                else:
                    held.lease.renew()
            except LoradeckError as error:
                if not self._warned:
                    self._warned = True
                    _log.warning(
                        "no lease in the registry: a garbage collection there does not know what this server uses",
                        extra={"digest": digest, "reason": error.reason, "error": error.message},
                    )
            else:
                self._warned = False

    async def _end(self, held: _Held) -> None:
        def end() -> None:
            with held.lock:
                held.wanted = False
                if held.lease is not None:
                    held.lease.release()

        await asyncio.get_running_loop().run_in_executor(self._threads, end)
