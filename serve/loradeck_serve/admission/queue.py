"""The queue in front of the engine: bounded, fair between adapters, and never wider than the engine's slots."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from loradeck_registry.errors import ExhaustedError
from loradeck_serve.admission.fairness import VirtualTokens
from loradeck_serve.admission.rates import Rates
from loradeck_serve.config import Fairness, Limits
from loradeck_serve.live import Live
from loradeck_serve.residency.slots import SlotOrder

BASE = ""
"""Key of requests without an adapter: they need no slot."""


class Place:
    """One request's place, from entering the queue to leaving the engine."""

    def __init__(self, queue: "AdmissionQueue", name: str, caller: str, deadline: float) -> None:
        self._queue = queue
        self.name = name
        self.caller = caller
        self.deadline = deadline
        self.key = BASE
        self.prompt_tokens = 0
        self.queue_seconds = 0.0
        self.priority = 0
        self.running = False
        self.since = 0.0
        self.turn: asyncio.Future[None] | None = None

    async def dispatch(self, key: str, prompt_tokens: int) -> None:
        """Wait for the turn. `key` is the adapter's digest, or BASE. Sets `queue_seconds` and `priority`.

        Raises ExhaustedError (RATE_LIMITED) at once if the turn would come too late for an answer in time.
        """
        self.key = key
        self.prompt_tokens = prompt_tokens
        begin = time.monotonic()
        await self._queue.wait_turn(self)
        self.queue_seconds = time.monotonic() - begin

    def charge(self, output_tokens: int) -> None:
        """Count generated tokens against the adapter's share."""
        self._queue.fairness.output(self.name, output_tokens)


class AdmissionQueue:
    """Bounds and orders requests. All methods run on one event loop.

    A request enters (refused at once when full), then waits for its turn. The turn goes to the adapter with the least
    virtual time among those that may run: total and per-adapter concurrency bounds hold, and at most `slots` distinct
    adapters run at a time. An adapter that has held a slot longer than the quantum gets no further turns while
    another one waits for a slot, so its running requests end and the slot passes on. Base requests need no slot.
    Rates, and the bounds of callers, hold requests back without holding up those behind them. A request whose turn
    would come too late for its deadline is refused instead: a flood would leave only requests that end unanswered.
    """

    def __init__(
        self, limits: Live[Limits], fairness: Fairness, slots: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._quantum = fairness.quantum_seconds
        self._slots = slots
        self._clock = clock
        self.fairness = VirtualTokens(fairness.prompt_token_cost, fairness.output_token_cost, fairness.weights)
        self._inside: Counter[str] = Counter()
        """Requests by name, waiting for a load, waiting for a turn, or running."""
        self._running_by_name: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        """Requests in the engine, by key."""
        self._since: dict[str, float] = {}
        """When each running adapter took its slot."""
        self._waiting: dict[str, deque[Place]] = {}
        self._waiting_by_name: Counter[str] = Counter()
        self._waiting_by_caller: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        """Smoothed seconds that a request of a name is in the engine."""
        self._running_by_caller: Counter[str] = Counter()
        self._adapter_rates = Rates(limits.now.rate_per_adapter)
        self._caller_rates = Rates(limits.now.rate_per_caller)
        self._swap_rate = Rates(fairness.swaps_per_second)
        self._recent = SlotOrder(slots)
        """What the engine's slots hold, to tell a swap from a return."""
        self._timer: asyncio.TimerHandle | None = None
        """Set while a rate alone holds somebody back."""
        self._interval = 0.05
        """Smoothed seconds between two requests leaving."""
        self._last_left: float | None = None

    @property
    def running(self) -> int:
        """Requests in the engine."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Requests admitted and not in the engine yet."""
        return self._inside.total() - self._running.total()

    def waiting_of(self, name: str) -> int:
        """Requests of one adapter, admitted and not in the engine yet."""
        return self._inside[name] - self._running_by_name[name]

    def counts(self) -> dict[str, tuple[int, int]]:
        """Waiting and running requests per adapter name (empty: the base)."""
        return {
            name: (count - self._running_by_name[name], self._running_by_name[name])
            for name, count in self._inside.items()
            if count
        }

    @property
    def empty(self) -> bool:
        """Whether no request is inside."""
        return not self._inside.total()

    @asynccontextmanager
    async def enter(self, name: str, caller: str = "", deadline: float = math.inf) -> AsyncIterator[Place]:
        """Take a place for a request of adapter `name` (empty: the base). Raises ExhaustedError when full.

        `caller` is who asks, if that is known: an empty one has no bounds of its own. `deadline` is a moment of the
        clock.
        """
        if self.waiting >= self._limits.now.queue:
            raise self._full("the server's queue is full", self.waiting)
        if self.waiting_of(name) >= self._limits.now.queue_per_adapter:
            raise self._full(f"the queue of {name or 'the base'} is full", self.waiting_of(name))
        place = Place(self, name, caller, deadline)
        if not self._inside[name]:
            self.fairness.arrive(name, [n for n, count in self._inside.items() if count])
        self._inside[name] += 1
        try:
            yield place
        finally:
            self._leave(place)

    def limits_changed(self) -> None:
        """To be called once the limits have been replaced: what they hold back no longer goes on."""
        self._adapter_rates.set(self._limits.now.rate_per_adapter)
        self._caller_rates.set(self._limits.now.rate_per_caller)
        self._pump()

    async def wait_turn(self, place: Place) -> None:
        """Used by Place."""
        self._check_in_time(place)
        place.turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(place.key, deque()).append(place)
        self._waiting_by_name[place.name] += 1
        self._waiting_by_caller[place.caller] += 1
        self._pump()
        await place.turn

    def _leave(self, place: Place) -> None:
        self._decrease(self._inside, place.name)
        if place.running:
            self._decrease(self._running_by_name, place.name)
            self._decrease(self._running, place.key)
            self._decrease(self._running_by_caller, place.caller)
            if not self._running[place.key]:
                self._since.pop(place.key, None)
            now = self._clock()
            if self._last_left is not None:
                self._interval += 0.1 * (min(now - self._last_left, 5.0) - self._interval)
            self._last_left = now
            usual = self._seconds.setdefault(place.name, now - place.since)
            self._seconds[place.name] = usual + 0.1 * (now - place.since - usual)
        elif place.turn is not None:
            self._take_out(place)
        if not self._inside[place.name]:
            self.fairness.leave(place.name)
            if self.empty:
                self.fairness.quiet(place.name)
        self._pump()

    @staticmethod
    def _decrease(counter: Counter[str], key: str) -> None:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]

    def _take_out(self, place: Place) -> None:
        queue = self._waiting[place.key]
        queue.remove(place)
        if not queue:
            del self._waiting[place.key]
        self._decrease(self._waiting_by_name, place.name)
        self._decrease(self._waiting_by_caller, place.caller)

    def _check_in_time(self, place: Place) -> None:
        """Raise ExhaustedError if the rates alone make the turn come so late that no answer can be in time."""
        now = self._clock()
        wait = self._adapter_rates.wait(place.name, now, 1.0 + self._waiting_by_name[place.name])
        who, most = place.name or "the base", self._limits.now.rate_per_adapter
        if place.caller:
            alone = self._caller_rates.wait(place.caller, now, 1.0 + self._waiting_by_caller[place.caller])
            if alone > wait:
                wait, who, most = alone, place.caller, self._limits.now.rate_per_caller
        if wait and now + wait + 2 * self._seconds.get(place.name, 0.0) > place.deadline:
            raise ExhaustedError(
                f"{who} is over its {most:g} requests per second, and the turn would come too late for the deadline: "
                f"retry in {wait:.1f} s",
                reason="RATE_LIMITED",
                retry_after=wait,
            )

    def _pump(self) -> None:
        while self._running.total() < self._limits.now.concurrent and (place := self._next()) is not None:
            self._take_out(place)
            self._start(place)

    def _start(self, place: Place) -> None:
        now = self._clock()
        place.running = True
        place.since = now
        place.priority = int(self.fairness.of(place.name))
        self.fairness.prompt(place.name, place.prompt_tokens)
        self._adapter_rates.take(place.name, now)
        self._caller_rates.take(place.caller, now)
        if place.key != BASE:
            if place.key not in self._running:
                self._since[place.key] = now
            if not self._recent.touch(place.key):
                self._swap_rate.take("", now)
        self._running[place.key] += 1
        self._running_by_name[place.name] += 1
        self._running_by_caller[place.caller] += 1
        assert place.turn is not None
        if not place.turn.done():
            place.turn.set_result(None)

    def _next(self) -> Place | None:
        """The request that goes next, or None if nobody may run now: if a rate alone is in the way, a timer is set."""
        free_slot = len(self._since) < self._slots
        outsiders = any(key != BASE and key not in self._since for key in self._waiting)
        now = self._clock()
        best: Place | None = None
        shortest = math.inf
        for key, queue in self._waiting.items():
            if not self._may_run(key, now, free_slot, outsiders):
                continue
            place, wait = self._first(queue, now)
            shortest = min(shortest, wait)
            if place is not None and (best is None or self._rank(place) < self._rank(best)):
                best = place
        if best is None and shortest < math.inf:
            self._wake_in(shortest)
        return best

    def _may_run(self, key: str, now: float, free_slot: bool, outsiders: bool) -> bool:
        """Whether the adapter has a slot, or may take one."""
        if key == BASE:
            return True
        if key not in self._since:
            return free_slot
        return free_slot or not outsiders or now - self._since[key] < self._quantum

    def _first(self, queue: deque[Place], now: float) -> tuple[Place | None, float]:
        """The first request of an adapter that no bound holds back, or how long until a rate lets one go."""
        head = queue[0]
        if self._running_by_name[head.name] >= self._limits.now.concurrent_per_adapter:
            return None, math.inf
        swap = 0.0 if head.key == BASE or head.key in self._recent else self._swap_rate.wait("", now)
        common = max(self._adapter_rates.wait(head.name, now), swap)
        if common:
            return None, common
        shortest = math.inf
        for place in queue:
            if not place.caller:
                return place, 0.0
            if 0 < self._limits.now.concurrent_per_caller <= self._running_by_caller[place.caller]:
                continue
            wait = self._caller_rates.wait(place.caller, now)
            if not wait:
                return place, 0.0
            shortest = min(shortest, wait)
        return None, shortest

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._pump)

    def _rank(self, place: Place) -> tuple[float, int]:
        """Least virtual time first; of equals, who has fewer requests running."""
        return self.fairness.of(place.name), self._running_by_name[place.name]

    def _full(self, what: str, ahead: int) -> ExhaustedError:
        wait = min(max(self._interval * max(ahead, 1) / 2, 0.1), 30.0)
        return ExhaustedError(
            f"{what} ({ahead} requests wait): retry in {wait:.1f} s", reason="QUEUE_FULL", retry_after=wait
        )
