"""Turning: aliases move between revisions with different answers, and the server is heard to follow."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from loradeck_bench.load.flips import Flip
from loradeck_bench.soak.cast import ALIAS
from loradeck_client import AliasFlip, AsyncAdminClient
from loradeck_registry.errors import LoradeckError
from loradeck_registry.registry import Registry, Revision

_PATIENCE = 10.0
WHY = "soak"


@dataclass
class Turning:
    """Each alias goes round its revisions, one move every `every` seconds over all of them."""

    registry: Registry
    operator: AsyncAdminClient
    revisions: Mapping[str, Sequence[Revision]]
    every: float
    flips: list[Flip] = field(default_factory=list)
    """Named `name@alias`, in order of time."""
    unheard: int = 0
    """Moves that the server did not follow in time."""
    _heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, now: Callable[[], float]) -> None:
        """Go on until cancelled; `now` is the run's clock."""
        watching = asyncio.create_task(self._watch(now))
        places = dict.fromkeys(self.revisions, 0)
        try:
            for name in itertools.cycle(self.revisions):
                await asyncio.sleep(self.every)
                places[name] = (places[name] + 1) % len(self.revisions[name])
                await self._move(name, self.revisions[name][places[name]], now)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError, LoradeckError):
                await watching

    async def _move(self, name: str, target: Revision, now: Callable[[], float]) -> None:
        flip = Flip(f"{name}@{ALIAS}", target.digest, now())
        self.flips.append(flip)
        self._heard.clear()
        await asyncio.to_thread(self.registry.move_alias, name, ALIAS, str(target.number), why=WHY)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), _PATIENCE)
        self.unheard += flip.acknowledged is None

    async def _watch(self, now: Callable[[], float]) -> None:
        async for event in self.operator.watch(list(self.revisions)):
            if not isinstance(event, AliasFlip) or event.alias != ALIAS or not self.flips:
                continue
            meant = {r.number: r.digest for r in self.revisions[event.name]}.get(event.revision)
            flip = self.flips[-1]
            if (flip.name, flip.digest, flip.acknowledged) == (f"{event.name}@{ALIAS}", meant, None):
                flip.acknowledged = now()
                self._heard.set()
