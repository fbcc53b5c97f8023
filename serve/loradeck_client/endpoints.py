"""The addresses of one client: which servers a request tries, in what order, and which are left out for now.

Requests for one adapter prefer the server that is likely to have it loaded: each client ranks the addresses by a hash
of adapter and address (rendezvous hashing: Thaler and Ravishankar, 1998). All clients with the same addresses agree
without talking to each other, adapters spread evenly, and when an address goes only its own adapters move.
"""

import hashlib
import itertools
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from loradeck_registry.errors import InvalidError

C = TypeVar("C")

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 10.0
_SCHEME = re.compile(r"^(ipv4|ipv6|unix|unix-abstract|vsock|dns|xds):")


def parse_targets(target: str | Sequence[str]) -> tuple[str, ...]:
    """Addresses from `a:1,b:2` or a list, each once. Raises InvalidError if there is none, an empty one, or a URL.

    A target with one of gRPC's own schemes (`dns:///name:1`, `ipv4:…`) is one address.
    """
    parts = list(target) if not isinstance(target, str) else [target] if _SCHEME.match(target) else target.split(",")
    targets = tuple(dict.fromkeys(part.strip() for part in parts))
    if not targets or not all(targets):
        raise InvalidError("an address of a server is empty: give host:port, or several with commas", field="server")
    if url := next((target for target in targets if target.lower().startswith(("http://", "https://"))), None):
        raise InvalidError(f"{url} is a URL: give host:port, and say with --tls whether it is TLS", field="server")
    return targets


@dataclass
class Endpoint(Generic[C]):
    """One address and what is connected to it. Safe for many threads: its fields change one at a time."""

    target: str
    connection: C
    down_until: float = 0.0
    """Monotonic; until then other addresses are preferred."""
    _pause: float = 0.0

    def failed(self) -> None:
        """It could not take a request: leave it out for a while, longer each time."""
        self._pause = min(max(2 * self._pause, _FIRST_SECONDS), _LONGEST_SECONDS)
        self.down_until = time.monotonic() + self._pause

    def answered(self) -> None:
        """It answers, well or not."""
        if self._pause:
            self._pause = self.down_until = 0.0

    def try_again(self) -> None:
        """A request is on its way there to see whether it is back; others need not wait for the answer."""
        self.down_until = time.monotonic() + self._pause


class Endpoints(Generic[C]):
    """The addresses of one client, at least one."""

    def __init__(self, targets: Sequence[str], connect: Callable[[str], C]) -> None:
        """Raises what `connect` raises."""
        self.all = [Endpoint(target, connect(target)) for target in targets]
        self.closed = False
        """Whether the client is."""
        # Clients that start together must not all begin with the same server.
        self._turns = itertools.count(random.randrange(len(self.all)))

    def order(self, adapter: str) -> list[Endpoint[C]]:
        """The order for one request: those that answer first, by rank for an `adapter` name, in turn for the base.

        Those that did not answer of late follow; one whose pause is over gets its place back for one request.
        """
        if len(self.all) == 1:
            return list(self.all)
        if adapter:
            ranked = [self.all[place] for place in _ranks(adapter, tuple(e.target for e in self.all))]
        else:
            turn = next(self._turns) % len(self.all)
            ranked = self.all[turn:] + self.all[:turn]
        now = time.monotonic()
        up = [endpoint for endpoint in ranked if endpoint.down_until <= now]
        if up and up[0].down_until:
            up[0].try_again()
        return up + [endpoint for endpoint in ranked if endpoint not in up]


@lru_cache(4096)
def _ranks(adapter: str, targets: tuple[str, ...]) -> tuple[int, ...]:
    """Places of the addresses, the best for this adapter first."""

    def weight(place: int) -> bytes:
        return hashlib.sha256(f"{adapter}\0{targets[place]}".encode()).digest()

    return tuple(sorted(range(len(targets)), key=weight, reverse=True))
