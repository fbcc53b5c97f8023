"""The residency manager: single flight, eviction, pins, drains, failures, and any interleaving of them."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loradeck_registry.errors import ExhaustedError, LoradeckError, PreconditionError
from loradeck_registry.manifest import BaseIdentity, File, Lora, Manifest
from loradeck_registry.registry import Revision
from loradeck_serve.domain import Residency
from loradeck_serve.residency.entry import Entry, State
from loradeck_serve.residency.manager import ResidencyManager

BASE = BaseIdentity(
    reference="dir:base", digest="sha256:" + "0" * 64, compatibility="sha256:" + "1" * 64, vocabulary=10, rows=12
)


def revision(number: int) -> Revision:
    """A revision of its own."""
    manifest = Manifest(
        kind="adapter",
        base=BASE,
        lora=Lora(rank=8, alpha=8, target_modules=("q_proj",), dtype="float32"),
        files=(File(path="adapter_config.json", sha256=f"{number:064x}", size=1),),
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Revision(f"a{number}", 1, manifest.digest(), manifest)


class ScriptedLoader:
    """A loader that counts, waits and fails as told, and holds the manager to its promises."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.inside: set[str] = set()
        self.loads: list[str] = []
        self.released_names: list[str] = []
        self.local: set[str] = set()
        self.in_use: dict[str, int] = {}
        self.failures: dict[str, LoradeckError] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    def is_local(self, revision: Revision) -> bool:
        return revision.digest in self.local

    async def prepare(self, revision: Revision) -> None:
        await self.gate.wait()
        await asyncio.sleep(0)
        if error := self.failures.get(revision.name):
            raise error
        self.local.add(revision.digest)

    async def insert(self, revision: Revision) -> None:
        await asyncio.sleep(0)
        self.inside.add(revision.digest)
        self.loads.append(revision.name)
        assert len(self.inside) <= self.capacity, "more revisions in the engine than there are places"

    async def remove(self, revision: Revision) -> None:
        assert not self.in_use.get(revision.digest), f"{revision} was taken out while in use"
        await asyncio.sleep(0)
        self.inside.remove(revision.digest)

    def released(self, revision: Revision) -> None:
        assert revision.digest not in self.inside, f"{revision} was released while loaded"
        self.released_names.append(revision.name)


class ScriptedNeeds:
    """What should stay, as the test says."""

    def __init__(self) -> None:
        self.pinned: set[str] = set()
        self.shared: dict[str, float] = {}

    def shared_use(self) -> dict[str, float]:
        return self.shared


class Notes:
    """An observer that writes down."""

    def __init__(self) -> None:
        self.evictions: list[str] = []
        self.refusals: list[tuple[str, str]] = []
        self.states: list[tuple[str, State]] = []

    def changed(self, entry: Entry) -> None:
        self.states.append((entry.revision.name, entry.state))

    def loaded(self, entry: Entry, tier: Residency, seconds: float) -> None:
        assert seconds >= 0

    def refused(self, entry: Entry, reason: str) -> None:
        self.refusals.append((entry.revision.name, reason))

    def evicted(self, entry: Entry) -> None:
        self.evictions.append(entry.revision.name)


class Rig:
    """A manager with its scripted neighbours."""

    def __init__(self, capacity: int = 2, slots: int = 1, wait: float = 0.2) -> None:
        self.loader = ScriptedLoader(capacity)
        self.notes = Notes()
        self.needs = ScriptedNeeds()
        self.manager = ResidencyManager(self.loader, capacity, slots, wait, self.needs, self.notes)

    async def use(self, number: int, until: asyncio.Event | None = None) -> Residency:
        """A request."""
        wanted = revision(number)
        async with self.manager.use(wanted) as lease:
            assert wanted.digest in self.loader.inside, "a lease on a revision that is not in the engine"
            lease.dispatched()
            self.loader.in_use[wanted.digest] = self.loader.in_use.get(wanted.digest, 0) + 1
            try:
                await (until.wait() if until else asyncio.sleep(0))
                assert wanted.digest in self.loader.inside, "taken out under a running request"
            finally:
                self.loader.in_use[wanted.digest] -= 1
            return lease.residency


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(30):
        await asyncio.sleep(0)


async def test_many_requests_cause_one_load() -> None:
    rig = Rig()
    await asyncio.gather(*(rig.use(1) for _ in range(50)))
    assert rig.loader.loads == ["a1"]


async def test_residency_is_remote_then_hot_then_warm_then_cold() -> None:
    rig = Rig(capacity=2, slots=1)
    assert await rig.use(1) is Residency.REMOTE
    assert await rig.use(1) is Residency.HOT
    assert await rig.use(2) is Residency.REMOTE
    assert await rig.use(1) is Residency.WARM
    await rig.manager.unload(revision(1).digest)
    assert await rig.use(1) is Residency.COLD


async def test_least_recently_used_idle_revision_makes_way() -> None:
    rig = Rig(capacity=2)
    for number in (1, 2, 1, 3):
        await rig.use(number)
        await asyncio.sleep(0.002)
    assert rig.notes.evictions == ["a2"]
    assert rig.loader.inside == {revision(1).digest, revision(3).digest}


async def test_revision_in_use_is_never_evicted_and_the_next_waits_for_room() -> None:
    rig = Rig(capacity=1)
    done = asyncio.Event()
    first = asyncio.create_task(rig.use(1, done))
    await settle()
    second = asyncio.create_task(rig.use(2))
    await settle()
    assert not second.done()
    done.set()
    assert await first is Residency.REMOTE
    assert await second is Residency.REMOTE
    assert rig.notes.evictions == ["a1"]


async def test_no_room_for_too_long_is_exhausted_with_a_retry_time() -> None:
    rig = Rig(capacity=1, wait=0.05)
    done = asyncio.Event()
    first = asyncio.create_task(rig.use(1, done))
    await settle()
    with pytest.raises(ExhaustedError) as raised:
        await rig.use(2)
    assert raised.value.reason == "NO_HOST_ROOM"
    assert raised.value.retry_after
    # Want of room is no state of the revision, and is counted all the same.
    entry = rig.manager.find(revision(2).digest)
    assert entry is not None
    assert (entry.state, entry.view((), pinned=False).error_reason) == (State.CACHED, "")
    assert rig.notes.refusals == [("a2", "NO_HOST_ROOM")]
    done.set()
    await first
    assert await rig.use(2) is Residency.COLD


async def test_revisions_that_share_an_alias_grow_old_together() -> None:
    rig = Rig(capacity=2)
    await rig.use(1)
    await rig.use(2)
    # Asked for through the alias that it shares, whichever revision answered: not the least recently used one.
    rig.needs.shared[revision(1).digest] = time.time() + 1
    await rig.use(3)
    assert rig.notes.evictions == ["a2"]


async def test_what_is_no_longer_loaded_is_released_and_nothing_else() -> None:
    rig = Rig(capacity=2)
    rig.loader.failures["a3"] = PreconditionError("broken")
    await rig.use(1)
    await rig.use(2)
    assert rig.loader.released_names == []
    with pytest.raises(PreconditionError):
        await rig.use(3)
    assert rig.loader.released_names == ["a3"]
    await rig.manager.unload(revision(1).digest)
    assert rig.loader.released_names == ["a3", "a1"]
    assert rig.manager.needed == {revision(2).digest}


async def test_pinned_revision_is_neither_evicted_nor_unloaded() -> None:
    rig = Rig(capacity=2)
    await rig.use(1)
    rig.needs.pinned.add(revision(1).digest)
    await rig.use(2)
    await rig.use(3)
    assert rig.notes.evictions == ["a2"]
    with pytest.raises(PreconditionError) as raised:
        await rig.manager.unload(revision(1).digest)
    assert raised.value.reason == "PINNED"


async def test_failed_load_leaves_no_trace_and_reaches_every_waiter() -> None:
    rig = Rig(capacity=1)
    rig.loader.failures["a1"] = PreconditionError("no", reason="SHAPE_MISMATCH")
    results = await asyncio.gather(*(rig.use(1) for _ in range(5)), return_exceptions=True)
    assert {getattr(r, "reason", None) for r in results} == {"SHAPE_MISMATCH"}
    assert rig.manager.used == 0
    assert await rig.use(2) is Residency.REMOTE
    entry = rig.manager.find(revision(1).digest)
    assert entry is not None
    assert (entry.state, entry.holds) == (State.FAILED, 0)
    assert rig.notes.evictions == []


async def test_refused_revision_is_not_tried_at_every_request_but_is_when_asked_for() -> None:
    rig = Rig()
    rig.loader.failures["a1"] = PreconditionError("no", reason="NOT_FINITE")
    with pytest.raises(PreconditionError):
        await rig.use(1)
    del rig.loader.failures["a1"]
    with pytest.raises(PreconditionError):
        await rig.use(1)
    await rig.manager.ensure(revision(1))
    assert await rig.use(1) is Residency.HOT


async def test_unload_waits_for_running_requests_and_new_ones_load_anew() -> None:
    rig = Rig()
    done = asyncio.Event()
    first = asyncio.create_task(rig.use(1, done))
    await settle()
    unload = asyncio.create_task(rig.manager.unload(revision(1).digest))
    await settle()
    late = asyncio.create_task(rig.use(1))
    await settle()
    assert not unload.done()
    assert not late.done()
    done.set()
    await first
    await unload
    assert await late is Residency.COLD
    assert rig.loader.loads == ["a1", "a1"]


async def test_load_goes_on_when_its_caller_leaves() -> None:
    rig = Rig()
    rig.loader.gate.clear()
    request = asyncio.create_task(rig.use(1))
    await settle()
    request.cancel()
    await settle()
    rig.loader.gate.set()
    await settle()
    assert rig.loader.loads == ["a1"]
    assert await rig.use(1) is Residency.HOT


async def test_superseded_revision_goes_when_its_last_request_ends() -> None:
    rig = Rig()
    done = asyncio.Event()
    first = asyncio.create_task(rig.use(1, done))
    await settle()
    rig.manager.retire(revision(1).digest)
    await settle()
    assert rig.loader.inside == {revision(1).digest}
    done.set()
    await first
    await settle()
    assert rig.loader.inside == set()


async def test_lost_engine_forgets_what_it_held() -> None:
    rig = Rig()
    await rig.use(1)
    assert [r.name for r in rig.manager.engine_lost()] == ["a1"]
    rig.loader.inside.clear()
    assert rig.manager.used == 0
    assert await rig.use(1) is Residency.COLD


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["use", "end", "cancel", "unload", "retire", "pin", "unpin", "fail", "heal"]), st.integers(1, 4)
    ),
    max_size=50,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 3))
def test_any_interleaving_keeps_every_promise(steps: list[tuple[str, int]], capacity: int) -> None:
    async def run() -> None:
        rig = Rig(capacity=capacity, wait=0.01)
        requests: list[tuple[asyncio.Task[Residency], asyncio.Event]] = []
        others: list[asyncio.Task[None]] = []
        for what, number in steps:
            wanted = revision(number)
            if what == "use":
                done = asyncio.Event()
                requests.append((asyncio.create_task(rig.use(number, done)), done))
            elif what == "end" and requests:
                requests[number % len(requests)][1].set()
            elif what == "cancel" and requests:
                requests[number % len(requests)][0].cancel()
            elif what == "unload":
                others.append(asyncio.create_task(rig.manager.unload(wanted.digest)))
            elif what == "retire":
                rig.manager.retire(wanted.digest)
            elif what == "pin" and len(rig.needs.pinned) < capacity - 1:
                rig.needs.pinned.add(wanted.digest)
            elif what == "unpin":
                rig.needs.pinned.discard(wanted.digest)
            elif what == "fail":
                rig.loader.failures[wanted.name] = PreconditionError("no", reason="NAME_MISMATCH")
            elif what == "heal":
                rig.loader.failures.clear()
            for _ in range(number):
                await asyncio.sleep(0)
        for _, done in requests:
            done.set()
        results = await asyncio.wait_for(
            asyncio.gather(*(t for t, _ in requests), *others, return_exceptions=True), timeout=20
        )
        unexpected = [r for r in results if isinstance(r, BaseException)
                      and not isinstance(r, asyncio.CancelledError | LoradeckError)]  # fmt: skip
        assert not unexpected
        await settle()
        assert all(entry.holds == 0 and entry.running == 0 for entry in rig.manager.entries)
        assert rig.manager.used == len(rig.loader.inside)
        loaded = {e.revision.digest for e in rig.manager.entries if e.state is State.LOADED}
        assert loaded == rig.loader.inside
        rig.loader.failures.clear()
        rig.needs.pinned.clear()
        for number in range(1, 5):
            await rig.manager.ensure(revision(number))
        await rig.manager.close()

    asyncio.run(run())
