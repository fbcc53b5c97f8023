"""The admission queue: bounds, slots, quantum, fairness, and that nothing is lost when callers go away."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loradeck_registry.errors import ExhaustedError
from loradeck_serve.admission.fairness import VirtualTokens
from loradeck_serve.admission.queue import BASE, AdmissionQueue
from loradeck_serve.config import Fairness, Limits
from loradeck_serve.live import Live


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Requests against a queue; each is held until it is let go."""

    def __init__(
        self, slots: int = 2, weights: dict[str, float] | None = None, swaps: float = 0, **limits: Any
    ) -> None:
        self.clock = Clock()
        fairness = Fairness(weights=weights or {}, swaps_per_second=swaps)
        self.queue = AdmissionQueue(Live(Limits(**limits)), fairness, slots, self.clock)
        self.running: list[str] = []
        self.order: list[str] = []
        self.release: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def add(
        self, identifier: str, name: str, tokens: int = 10, caller: str = "", deadline: float = math.inf
    ) -> None:
        """A request of adapter `name`; it enters, and runs when its turn comes."""
        self.release[identifier] = asyncio.Event()
        self.tasks[identifier] = asyncio.create_task(self._run(identifier, name, tokens, caller, deadline))
        await settle()

    async def end(self, *identifiers: str) -> None:
        """Let running requests end."""
        for identifier in identifiers:
            self.release[identifier].set()
        await settle()

    async def _run(self, identifier: str, name: str, tokens: int, caller: str, deadline: float) -> None:
        async with self.queue.enter(name, caller, deadline) as place:
            await place.dispatch(f"digest of {name}" if name else BASE, tokens)
            self.order.append(identifier)
            self.running.append(identifier)
            try:
                await self.release[identifier].wait()
            finally:
                self.running.remove(identifier)


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Bench]:
    """A bench whose requests all end, and which is then empty."""
    made = Bench(**settings)
    yield made
    for event in made.release.values():
        event.set()
    await asyncio.gather(*made.tasks.values(), return_exceptions=True)
    assert made.queue.empty
    assert made.queue.waiting == made.queue.running == 0


async def test_at_most_slots_distinct_adapters_run_and_the_base_needs_none() -> None:
    async with bench(slots=2) as b:
        for name in "abc":
            await b.add(name, name)
        await b.add("base", "")
        assert b.running == ["a", "b", "base"]
        await b.end("a")
        assert b.running == ["b", "base", "c"]


async def test_an_adapter_gives_its_slot_up_after_the_quantum_when_others_wait() -> None:
    async with bench(slots=1) as b:
        await b.add("a1", "a")
        await b.add("b1", "b")
        await b.add("a2", "a")
        # Within its quantum the adapter goes on, if it is its turn: b has had nothing, but there is no slot for it.
        assert b.running == ["a1", "a2"]
        b.clock.now = 1.0
        await b.add("a3", "a")
        assert b.running == ["a1", "a2"]
        await b.end("a1", "a2")
        assert b.running == ["b1"]
        await b.end("b1")
        assert b.running == ["a3"]


async def test_an_adapter_alone_is_not_stopped_by_the_quantum() -> None:
    async with bench(slots=1) as b:
        await b.add("a1", "a")
        b.clock.now = 100.0
        await b.add("a2", "a")
        assert b.running == ["a1", "a2"]


async def test_full_queue_refuses_and_recovers() -> None:
    async with bench(queue=2, concurrent=1) as b:
        for index in range(3):
            await b.add(f"r{index}", "a")
        with pytest.raises(ExhaustedError) as raised:
            async with b.queue.enter("b"):
                pass
        assert raised.value.reason == "QUEUE_FULL"
        assert raised.value.retry_after is not None
        await b.end("r0")
        async with b.queue.enter("b"):
            pass


async def test_one_adapter_cannot_fill_the_queue_of_all() -> None:
    async with bench(queue=10, queue_per_adapter=2, concurrent=1) as b:
        for index in range(3):
            await b.add(f"r{index}", "a")
        with pytest.raises(ExhaustedError, match="queue of a"):
            async with b.queue.enter("a"):
                pass
        async with b.queue.enter("b"):
            pass


async def test_concurrency_of_one_adapter_is_bounded() -> None:
    async with bench(concurrent_per_adapter=2) as b:
        for index in range(3):
            await b.add(f"a{index}", "a")
        await b.add("b0", "b")
        assert b.running == ["a0", "a1", "b0"]


async def test_a_flood_of_one_adapter_does_not_delay_another() -> None:
    async with bench(concurrent=2, queue=1000, queue_per_adapter=1000) as b:
        for index in range(100):
            await b.add(f"flood{index}", "flood", tokens=100)
        await b.add("quiet", "quiet", tokens=100)
        await b.end("flood0")
        assert "quiet" in b.running, "the quiet adapter waited behind the flood"


async def test_one_adapter_leaves_room_in_the_engine_for_others() -> None:
    limits = Limits()
    bench = Bench()
    for index in range(limits.concurrent + 10):
        await bench.add(f"flood-{index}", "flood")
    assert len(bench.running) == limits.concurrent_per_adapter < limits.concurrent
    await bench.add("other", "other")
    assert "other" in bench.running
    await bench.end(*bench.tasks)
    while bench.queue.running:
        await bench.end(*bench.tasks)


async def test_long_run_shares_are_even_and_follow_weights() -> None:
    async with bench(slots=3, concurrent=1, queue=1000, queue_per_adapter=1000, weights={"c": 2.0}) as b:
        for index in range(80):
            for name, tokens in (("a", 10), ("b", 40), ("c", 10)):
                await b.add(f"{name}{index}", name, tokens)
        for _ in range(120):
            await b.end(b.running[0])
        served = Counter(identifier[0] for identifier in b.order)
        # Tokens, not requests: b's are four times as long, c weighs twice as much.
        assert served["a"] == pytest.approx(4 * served["b"], rel=0.15)
        assert served["c"] == pytest.approx(2 * served["a"], rel=0.15)


async def test_a_caller_at_its_bound_waits_and_holds_up_nobody_behind_it() -> None:
    async with bench(concurrent_per_caller=1) as b:
        await b.add("x1", "a", caller="x")
        await b.add("x2", "a", caller="x")
        await b.add("y1", "a", caller="y")
        await b.add("nobody", "a")
        assert b.running == ["x1", "y1", "nobody"]
        await b.end("x1")
        assert b.running == ["y1", "nobody", "x2"]


@pytest.mark.parametrize("limit", ["rate_per_adapter", "rate_per_caller"])
async def test_a_rate_holds_back_and_lets_go_by_itself(limit: str) -> None:
    async with bench(**{limit: 1}) as b:
        for identifier in ("a1", "a2", "b1"):
            await b.add(identifier, identifier[0], caller=identifier[0])
        assert b.running == ["a1", "b1"], "the second of a waits for its rate, b does not wait behind it"
        b.clock.now = 1.0
        await asyncio.sleep(1.1)
        assert b.running == ["a1", "b1", "a2"], "nobody came or went: a timer must have let it go"


@pytest.mark.parametrize("limit", ["rate_per_adapter", "rate_per_caller"])
async def test_a_request_whose_turn_would_come_too_late_is_refused_at_once(limit: str) -> None:
    async with bench(**{limit: 2}) as b:
        for number in range(4):
            await b.add(f"a{number}", "a", caller="x", deadline=1.2)
        assert b.running == ["a0", "a1"], "two at once, and two wait for half a second and for one"
        await b.add("late", "a", caller="x", deadline=1.2)
        with pytest.raises(ExhaustedError, match="2 requests per second") as refused:
            await b.tasks["late"]
        assert refused.value.reason == "RATE_LIMITED"
        assert refused.value.retry_after == pytest.approx(1.5)
        await b.add("patient", "a", caller="x", deadline=5.0)
        assert b.queue.waiting == 3
        b.clock.now = 0.4
        await b.end("a0", "a1")
        b.clock.now = 0.5
        await b.add("slow", "a", caller="x", deadline=2.2)
        with pytest.raises(ExhaustedError):
            await b.tasks["slow"]
        assert b.queue.waiting + len(b.running) == 3, "requests take 0.4 s: what would come at 2.0 is too late for 2.2"
        b.clock.now = 9.0


async def test_swaps_are_bounded_and_returns_are_not_swaps() -> None:
    async with bench(slots=1, swaps=1) as b:
        await b.add("a1", "a")
        await b.end("a1")
        await b.add("a2", "a")
        await b.end("a2")
        await b.add("b1", "b")
        assert b.order == ["a1", "a2"], "a came back to its slot for free; b must wait"
        b.clock.now = 1.0
        await asyncio.sleep(1.1)
        assert b.order == ["a1", "a2", "b1"]


async def test_a_caller_who_goes_away_while_waiting_leaves_no_trace() -> None:
    async with bench(concurrent=1) as b:
        await b.add("r0", "a")
        await b.add("r1", "b")
        await b.add("r2", "b")
        b.tasks["r1"].cancel()
        await settle()
        assert b.queue.waiting == 1
        await b.end("r0")
        assert b.running == ["r2"]


async def test_a_caller_who_goes_away_while_running_frees_the_slot() -> None:
    async with bench(slots=1) as b:
        await b.add("a", "a")
        await b.add("b", "b")
        b.tasks["a"].cancel()
        await settle()
        assert b.running == ["b"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "end", "cancel", "wait"]),
            st.sampled_from(["a", "b", "c", "d", ""]),
            st.integers(0, 30),
        ),
        max_size=60,
    ),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_any_interleaving_keeps_the_bounds_and_starves_nobody(
    steps: list[tuple[str, str, int]], slots: int, concurrent: int
) -> None:
    async def run() -> None:
        async with bench(slots=slots, concurrent=concurrent, queue=1000, queue_per_adapter=1000) as b:
            number = 0
            for what, name, pick in steps:
                if what == "add":
                    number += 1
                    await b.add(f"{name}#{number}", name)
                elif what == "end" and b.running:
                    await b.end(b.running[pick % len(b.running)])
                elif what == "cancel" and b.tasks:
                    list(b.tasks.values())[pick % len(b.tasks)].cancel()
                    await settle()
                else:
                    b.clock.now += 0.3
                names = {identifier.partition("#")[0] for identifier in b.running} - {""}
                assert len(names) <= slots
                assert len(b.running) <= concurrent
                assert b.queue.running == len(b.running)
                assert b.running or not b.queue.waiting, "requests wait while nothing runs"
            for _ in range(200):
                if not b.running:
                    break
                b.clock.now += 1.0
                await b.end(b.running[0])
            assert b.queue.empty

    asyncio.run(run())


def test_a_returning_adapter_neither_saved_up_service_nor_is_punished() -> None:
    tokens = VirtualTokens()
    tokens.arrive("a", [])
    tokens.prompt("a", 1000)
    tokens.arrive("b", ["a"])
    assert tokens.of("b") == tokens.of("a"), "b was away: it starts where the busy ones are"
    tokens.output("b", 10)
    assert tokens.of("b") == tokens.of("a") + 20
    tokens.leave("b")
    tokens.arrive("b", ["a"])
    assert tokens.of("b") == tokens.of("a") + 20, "leaving and coming back does not wipe what b had"
