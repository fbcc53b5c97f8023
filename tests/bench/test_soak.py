"""The soak's judgement: what counts as wrong, hung, crashed, grown or leaked."""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import loradeck.inference.v1 as inference
from loradeck_bench.load.flips import Flip
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.soak.cast import Cast, Script
from loradeck_bench.soak.leaks import TASKS, empty, find_leaks, idle
from loradeck_bench.soak.ledger import HANG, SETTLED_SECONDS, Ledger
from loradeck_bench.soak.run import failures
from loradeck_bench.soak.table import soak_table
from loradeck_bench.soak.vitals import Vital, growth, scrape
from loradeck_client import AsyncAdminClient
from loradeck_registry.collection.leases import read_leases
from tests.serve.conftest import Start, deck, made_deck, start  # noqa: F401
from tests.serve.deck import Deck
from tests.serve.waiting import until


@dataclass(frozen=True)
class Revised:
    """As much of a revision as is judged by."""

    digest: str


NAMES = ("a", "b", "flooded")
CAST = Cast(NAMES, {}, {"a@9": "REVISION_NOT_FOUND"}, {name: Revised(f"{name}-1") for name in NAMES})  # type: ignore[dict-item]
SCRIPT = Script(
    ("p",),
    {("", 0): "base", ("a-1", 0): "one", ("a-2", 0): "two", ("b-1", 0): "three"},
    {("", 0): "base and more", ("b-1", 0): "three and more"},
)


def ledger(flips: Sequence[Flip] = ()) -> Ledger:
    """An empty one."""
    return Ledger(CAST, SCRIPT, lambda digest: {"a-copy": "a-1"}.get(digest, digest), lambda: flips)


def record(adapter: str = "", text: str = "", digest: str = "", status: str = "ok", reason: str = "") -> RequestRecord:
    """A request that was sent at 10 and ended at 11."""
    return RequestRecord(
        0, adapter, "generate", 0, 10.0, sent=10.0, end=11.0, status=status, reason=reason, text=text, digest=digest
    )


def judged(part: Any, *records: RequestRecord, flips: Sequence[Flip] = ()) -> Ledger:
    """The ledger of these records, settled."""
    made = ledger(flips)
    for one in records:
        made.add(part, one)
    made.settle(11.0 + SETTLED_SECONDS)
    return made


def test_right_answers_pass() -> None:
    done = judged("steady", record("", "base"), record("a@prod", "one", "a-1"), record("b@prod", "three", "b-1"))
    assert (done.checked, done.wrong, done.unexpected, done.hangs, done.crashes) == (3, 0, 0, 0, 0)
    assert done.times == [(10.0, 1.0)] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        record("a@prod", "two", "a-1"),
        record("a@prod", "two", "a-2"),
        record("", "one", "a-1"),
        record("", "bass", ""),
    ],
    ids=["text of another", "revision that the alias does not mean", "adapter for the base", "another text"],
)
def test_wrong_answer_is_counted(wrong: RequestRecord) -> None:
    done = judged("steady", wrong)
    assert done.wrong == 1
    assert done.examples


def test_revision_of_a_move_may_answer_while_it_is_under_way_and_the_old_one_not_after() -> None:
    under_way = [Flip("a@prod", "a-2", 9.0, acknowledged=10.5)]
    assert judged("steady", record("a@prod", "two", "a-2"), record("a@prod", "one", "a-1"), flips=under_way).wrong == 0
    over = [Flip("a@prod", "a-2", 8.0, acknowledged=9.0)]
    assert judged("steady", record("a@prod", "one", "a-1"), flips=over).wrong == 1


def test_copy_must_answer_as_its_original() -> None:
    flips = [Flip("a@prod", "a-copy", 8.0, acknowledged=9.0)]
    assert judged("steady", record("a@prod", "one", "a-copy"), flips=flips).wrong == 0
    assert judged("steady", record("a@prod", "two", "a-copy"), flips=flips).wrong == 1


def test_broken_off_stream_must_have_begun_right() -> None:
    assert judged("cancelled", record("b@prod", "three a", status="cancelled")).wrong == 0
    assert judged("cancelled", record("b@prod", "thrice", status="cancelled")).wrong == 1
    assert judged("expired", record("", "base and", status="deadline")).wrong == 0


@pytest.mark.parametrize(
    ("part", "status", "reason", "count"),
    [
        ("steady", "exhausted", "QUEUE_FULL", "unexpected"),
        ("flood", "exhausted", "QUEUE_FULL", None),
        ("flood", "deadline", "", None),
        ("steady", "deadline", "", "hangs"),
        ("expired", "deadline", "", None),
        ("flood", HANG, "", "hangs"),
        ("bad", "internal", "INTERNAL", "crashes"),
        ("cancelled", "unavailable", "ENGINE_RESTARTING", "crashes"),
    ],
)
def test_end_of_a_request_is_right_or_counted(part: Any, status: str, reason: str, count: str | None) -> None:
    done = judged(part, record("a@prod", status=status, reason=reason))
    seen = {name: getattr(done, name) for name in ("unexpected", "hangs", "crashes")}
    assert seen == {name: int(name == count) for name in seen}


def test_bad_adapter_must_be_refused_for_its_own_reason() -> None:
    assert judged("bad", record("a@9", status="not_found", reason="REVISION_NOT_FOUND")).unexpected == 0
    assert judged("bad", record("a@9", status="not_found", reason="NAME_NOT_FOUND")).unexpected == 1
    assert judged("bad", record("a@9", "one", "a-1")).unexpected == 1


def test_growth_compares_the_last_third_with_the_first() -> None:
    looks = [Vital(float(t), {"server-1": 100 + (10 if t >= 6 else 0)}, {}) for t in range(9)]
    found = growth(looks)
    assert found["growth"] == pytest.approx(0.10)
    assert found["grown_bytes_by_process"] == {"server-1": 10}


PASSED = {
    "requests": 10, "replies_checked": 9, "outcomes": {"steady": {"ok": 10}}, "examples": [], "leaks": {},
    "crashes": 0, "hangs": 0, "wrong_tokens": 0, "unexpected": 0, "leaked": 0, "moves_not_followed": 0, "moves": 1,
    "server_exit_code": None, "rss_growth": 0.019, "p99_first": 100.0, "p99_last": 119.0, "minutes": 30.0,
    "churn": {"publish": 1}, "memory": {"last_bytes": 1},
}  # fmt: skip


def test_soak_passes_within_its_bounds_and_fails_beyond_each() -> None:
    assert failures(PASSED) == []
    for change in (
        {"crashes": 1}, {"hangs": 1}, {"wrong_tokens": 1}, {"leaked": 1}, {"unexpected": 1}, {"rss_growth": 0.021},
        {"p99_last": 121.0}, {"p99_last": float("nan")}, {"server_exit_code": 0}, {"moves_not_followed": 1},
    ):  # fmt: skip
        assert len(failures({**PASSED, **change})) == 1, change
    assert soak_table(PASSED).row_count


async def test_server_that_was_emptied_has_nothing_left(start: Start, deck: Deck) -> None:  # noqa: F811
    running = await start()
    metrics = str(running.server.addresses.metrics)
    before = await idle(os.getpid(), metrics)
    for reference in ("clf", "clf@2", "clf-text"):
        await running.inference.Classify(inference.ClassifyRequest(adapter=reference, text="x"))
    async with AsyncAdminClient(str(running.server.addresses.admin)) as operator:
        await empty(operator)
    assert await find_leaks(os.getpid(), metrics, deck.registry, before) == {}


async def test_what_is_left_behind_is_found(start: Start, deck: Deck, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("loradeck_bench.soak.leaks._PATIENCE", 0.5)
    running = await start()
    metrics = str(running.server.addresses.metrics)
    before = await idle(os.getpid(), metrics)
    await running.inference.Classify(inference.ClassifyRequest(adapter="clf", text="x"))
    # Some of the tasks before may have ended.
    forgotten = [asyncio.create_task(asyncio.sleep(600)) for _ in range(TASKS + 20)]

    async def there() -> bool:
        """Whether the gauges, which the server sets each second, and the lease, written behind the answer, say so."""
        now = await asyncio.to_thread(scrape, metrics)
        full = now["loradeck_slots_used"] and now["loradeck_adapters_resident"]
        held = await asyncio.to_thread(read_leases, deck.registry._store)
        leased = any(lease.holder.startswith("server-") for lease in held)
        return bool(full and now["loradeck_tasks"] > before.tasks + TASKS and leased)

    try:
        await until(there)
        found = Counter(await find_leaks(os.getpid(), metrics, deck.registry, before))
    finally:
        for task in forgotten:
            task.cancel()
    assert found.keys() >= {"place in host memory", "slot", "lease in the registry", "task"}
