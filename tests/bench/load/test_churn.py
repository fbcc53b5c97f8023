"""Churn beside a load: what it takes, and how replies are judged that came meanwhile. tests/e2e runs it for real."""

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loradeck_bench.asking import Asking
from loradeck_bench.load.churn import Churn, Operation, _Alias
from loradeck_bench.load.churn_account import account, ask_golden
from loradeck_bench.load.flips import Flip
from loradeck_bench.load.plan import Subject
from loradeck_bench.load.record import OK, RequestRecord
from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_registry.registry import Registry
from tests.bench.conftest import RunningServer
from tests.bench.test_storage import push

FILES = {"adapter_config.json": b"{}"}


class Named(SimpleNamespace):
    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


def revision(number: int) -> Any:
    return Named(name="clf", number=number, digest=f"digest-{number}")


def churn(*flips: Flip) -> Churn:
    alias = _Alias("clf", "prod", revision(1), revision(1), [revision(1), revision(2)])
    done = [Operation("move", "clf@prod", 2, 2.0, 2.5)]
    return Churn(None, None, ["move"], 1.0, [alias], done, list(flips))  # type: ignore[arg-type]


def reply(sent: float, end: float, number: int, adapter: str = "clf@prod", text: str = "t") -> RequestRecord:
    return RequestRecord(
        0, adapter, "short_qa", 0, sent, sent=sent, end=end, status=OK, revision=number, digest=f"digest-{number}",
        text=text,
    )  # fmt: skip


MOVE = Flip("clf@prod", "digest-2", started=2.0, acknowledged=2.5)


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        (reply(1.0, 1.5, 1), False),
        (reply(1.0, 1.5, 2), True),  # before the move began
        (reply(1.9, 2.2, 2), False),  # it began while the request ran
        (reply(2.4, 3.0, 1), False),  # not yet acknowledged when it was sent
        (reply(2.6, 3.0, 1), True),
        (reply(2.6, 3.0, 2), False),
        (reply(2.6, 3.0, 7), True),
        (reply(2.6, 3.0, 1, adapter="clf"), True),  # a bare name means prod
        (reply(2.6, 3.0, 1, adapter="clf@1"), False),  # pinned: nothing to do with the alias
        (reply(2.6, 3.0, 9, adapter=""), False),  # the base
    ],
)
def test_reply_must_come_from_what_the_alias_may_have_meant(record: RequestRecord, wrong: bool) -> None:
    assert account(churn(MOVE), [record])["wrong_revision"] == int(wrong)


def test_answers_of_copies_are_compared_with_those_of_the_first_revision() -> None:
    records = [reply(1.0, 1.5, 1), reply(3.0, 3.5, 2), reply(3.0, 3.5, 2, text="other")]
    found = account(churn(MOVE), records)
    assert (found["copies_compared"], found["different_answers"]) == (2, 1)
    assert (found["during"]["requests"], found["calm"]["requests"]) == (2, 1)  # to a second after the operation


async def test_rows_that_only_copies_answered_are_put_to_the_first_revision_afterwards(scripted: RunningServer) -> None:
    rows = ({"prompt": "right"}, {"prompt": "also"})
    asking = Asking(scripted.address, {"clf@prod": Subject("clf@prod", "generate", rows, raw=False)}, 5.0)
    records = [reply(3.0, 3.5, 2, text="right"), reply(3.0, 3.5, 2, text="wrong")]
    for row, record in enumerate(records):
        record.task, record.row = "generate", row
    changed = churn(MOVE)
    await ask_golden(asking, changed, records)
    assert [request.adapter for request in scripted.servicer.seen] == ["clf@1", "clf@1"]
    found = account(changed, records)
    assert (found["copies_compared"], found["different_answers"]) == (2, 1)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    push(made, tmp_path, "clf", "adapter", FILES)
    made.move_alias("clf", "prod", "1")
    return made


@pytest.mark.parametrize(
    ("references", "what", "error", "message"),
    [
        (["clf@prod"], "restart", InvalidError, "bad churn 'restart': use publish, move, unload"),
        (["clf@prod"], "", InvalidError, "bad churn"),
        (["clf@1", ""], "move", InvalidError, "names an alias"),
        (["other@prod"], "move", InvalidError, "names an alias"),
    ],
)
def test_churn_that_cannot_be_is_refused(
    registry: Registry, references: list[str], what: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Churn.of(registry, None, references, what, 1.0)  # type: ignore[arg-type]


def test_weighted_alias_is_refused(registry: Registry, tmp_path: Path) -> None:
    push(registry, tmp_path, "clf", "adapter", {"adapter_config.json": b"{ }"})
    registry.move_alias("clf", "canary", {"1": 90.0, "2": 10.0})
    with pytest.raises(PreconditionError, match="weighted"):
        Churn.of(registry, None, ["clf@canary"], "move", 1.0)  # type: ignore[arg-type]


def test_published_copy_has_the_same_files_under_a_new_digest(registry: Registry) -> None:
    made = Churn.of(registry, None, ["clf"], "publish,move", 1.0)  # type: ignore[arg-type]
    (alias,) = made.aliases
    copy = made._publish(alias)
    assert copy.number == alias.first.number + 1
    assert copy.digest != alias.first.digest
    assert copy.manifest.files == alias.first.manifest.files
    assert copy.manifest.provenance["copy_of"] == "clf@1"


async def test_a_move_that_still_runs_when_the_churn_ends_is_undone_too(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Churn.of(registry, None, ["clf"], "publish,move", 1.0)  # type: ignore[arg-type]
    (alias,) = made.aliases
    alias.known.append(made._publish(alias))
    begun, goes_on = threading.Event(), threading.Event()
    move_alias = registry.move_alias

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        goes_on.wait(30)
        return move_alias(*arguments, **options)

    monkeypatch.setattr(registry, "move_alias", slow)
    moving = asyncio.create_task(made._move(alias, time.monotonic))
    assert await asyncio.to_thread(begun.wait, 30)
    moving.cancel()
    restoring = asyncio.create_task(made.restore())
    await asyncio.sleep(0.05)
    goes_on.set()
    await restoring
    assert registry.resolve("clf@prod").number == 1
    assert [entry.revision for entry in registry.history("clf", "prod")][:2] == [1, 2]
