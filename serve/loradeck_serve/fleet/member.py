"""The member: keeps this server's place among the servers on its registry."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from loradeck_registry.errors import LoradeckError
from loradeck_registry.registry import Registry

_log = logging.getLogger(__name__)

BEATS = 3
"""Renewals that may be missed before the others count this server as gone."""
_LEAVE_SECONDS = 2.0


class FleetMember:
    """Says in the registry, every `seconds`, that this server lives. Methods run on one event loop.

    Nothing here keeps the server from serving: one that may not write, or cannot reach the registry, says so once in
    the log, and is not asked about moves that the others make together; it follows them as it follows every move.
    """

    def __init__(self, registry: Registry, base: str, seconds: float) -> None:
        self._membership = registry.membership(f"{socket.gethostname()}-{os.getpid()}", base, BEATS * seconds)
        self._seconds = seconds
        # A thread of its own: behind long downloads the others would take this server for dead.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fleet")
        self._warned = False
        self._left = False

    @property
    def id(self) -> str:
        """What the other members, and people, know this server by."""
        return self._membership.id

    async def join(self) -> None:
        """Be a member from now on, if that can be."""
        await self._write(self._membership.join)

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            await self._write(self._membership.renew)

    async def leave(self) -> None:
        """Be none any more; nobody waits for this server from now on."""
        # A renewal behind it would make this server a member again.
        self._left = True
        leaving = asyncio.get_running_loop().run_in_executor(self._thread, self._membership.leave)
        # A registry that does not answer must not hold up the stop: the membership ends by its time.
        await asyncio.wait([leaving], timeout=_LEAVE_SECONDS)
        self._thread.shutdown(wait=False)

    async def _write(self, write: Callable[[], None]) -> None:
        if self._left:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, write)
        except LoradeckError as error:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "not seen by the other servers on the registry: moves made together do not ask this one",
                    extra={"reason": error.reason, "error": error.message},
                )
        else:
            self._warned = False
