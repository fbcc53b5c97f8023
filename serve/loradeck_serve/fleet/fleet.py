"""The fleet as one server sees it: its membership and its part in moves, started and stopped as one."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from loradeck_registry.registry import Registry
from loradeck_serve.catalog.catalog import Catalog
from loradeck_serve.catalog.swapper import Swapper
from loradeck_serve.fleet.member import FleetMember
from loradeck_serve.fleet.participant import Participant
from loradeck_serve.residency.manager import ResidencyManager
from loradeck_serve.served_base import ServedBase


class Fleet:
    """Joins before requests are taken, leaves before they are refused."""

    def __init__(
        self, registry: Registry, base: ServedBase, catalog: Catalog, swapper: Swapper, residency: ResidencyManager,
        executor: Executor, hide: Callable[[str], str], heartbeat_seconds: float,
    ) -> None:  # fmt: skip
        self._member = FleetMember(registry, str(base), heartbeat_seconds)
        self._participant = Participant(
            registry, self._member.id, base, catalog, swapper, residency, executor, hide
        )  # fmt: skip

    @property
    def id(self) -> str:
        """What the other servers, and people, know this one by."""
        return self._member.id

    def prepare(self, move: str) -> None:
        """A move is being made together: take part, once."""
        self._participant.consider(move)

    async def join(self) -> None:
        """Be seen by the others, then look what they are about."""
        await self._member.join()
        await self._participant.join()

    async def run(self) -> None:
        """Stay a member until cancelled."""
        await self._member.run()

    async def leave(self) -> None:
        """Let nobody wait for this server any more."""
        await asyncio.gather(self._member.leave(), self._participant.close())
