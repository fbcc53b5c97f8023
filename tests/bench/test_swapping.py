"""A swap measured against a real registry and a server that follows it, with and without planted mistakes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_bench.asking import Asker, connect, wait_flip
from loradeck_bench.load.plan import LoadPlan, Subject
from loradeck_bench.swapping import SwapPlan, measure_swap
from loradeck_cli.bench.group import command
from loradeck_registry.errors import PreconditionError
from loradeck_registry.manifest import BaseIdentity, File, Lora, Manifest
from loradeck_registry.registry import Registry, Revision

ROWS = ({"text": "AI and so on", "label": "AI"}, {"text": "Telecom and so on", "label": "Telecom"})
DIGEST = "sha256:" + "0" * 64


def publish(registry: Registry, folder: Path, content: bytes, alias: str | None = None) -> Revision:
    path = folder / f"{sha256(content).hexdigest()[:8]}.json"
    path.write_bytes(content)
    manifest = Manifest(
        kind="adapter",
        base=BaseIdentity(reference="pocket", digest=DIGEST, compatibility=DIGEST, vocabulary=10, rows=12),
        lora=Lora(rank=8, alpha=8, target_modules=("q_proj",), dtype="bfloat16"),
        files=(File(path="adapter_config.json", sha256=sha256(content).hexdigest(), size=len(content)),),
        create_time=datetime.now(UTC),
    )
    return registry.push("clf", manifest, {"adapter_config.json": path}, alias=alias)


@dataclass
class FollowingServer(inference.InferenceServiceServicer, adapters.AdapterServiceServicer):
    """Looks at the alias every 50 ms, flips, and tells those who watch. Two mistakes can be planted."""

    registry: Registry
    stale_after_flip: int = 0
    """So many requests after the flip are still answered by the old revision."""
    wrong_digest_every: int = 0
    follows: bool = True
    current: Revision | None = None
    before: Revision | None = None
    asked: int = 0
    events: list[asyncio.Queue[Any]] = field(default_factory=list)

    async def follow(self) -> None:
        self.current = self.registry.resolve("clf@prod")
        while True:
            await asyncio.sleep(0.05)
            found = self.registry.resolve("clf@prod")
            if self.follows and found.number != self.current.number:
                self.before, self.current = self.current, found
                flip = adapters.AliasFlip(name="clf", alias="prod", revision=found.number)
                for queue in self.events:
                    queue.put_nowait(adapters.WatchAdaptersResponse(alias_flip=flip))

    async def WatchAdapters(self, request: Any, context: Any) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.events.append(queue)
        if self.before is not None and self.current is not None:  # a watch that opens late hears of the flip too
            flip = adapters.AliasFlip(name="clf", alias="prod", revision=self.current.number)
            queue.put_nowait(adapters.WatchAdaptersResponse(alias_flip=flip))
        while True:
            yield await queue.get()

    async def Classify(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(0.005)
        revision = self.current
        assert revision is not None
        self.asked += 1
        if self.before is not None and self.stale_after_flip > 0 and request.text:
            self.stale_after_flip -= 1
            revision = self.before
        digest = revision.digest
        if self.wrong_digest_every and self.asked % self.wrong_digest_every == 0:
            digest = DIGEST
        return inference.ClassifyResponse(
            label="AI",
            probabilities=[inference.LabelProbability(label="AI", probability=1)],
            provenance=inference.Provenance(adapter="clf", revision=revision.number, digest=digest),
        )


@pytest.fixture
async def swap(tmp_path: Path) -> AsyncIterator[Any]:
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    publish(registry, tmp_path, b'{"r": 1}', "prod")
    servicer = FollowingServer(registry)
    server = grpc.aio.server()
    inference.add_InferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    adapters.add_AdapterServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    follower = asyncio.create_task(servicer.follow())

    async def measure(patience: float = 30.0, **mistakes: Any) -> dict[str, Any]:
        for name, value in mistakes.items():
            setattr(servicer, name, value)
        load = LoadPlan({"clf@prod": Subject("clf@prod", "classification", ROWS)}, duration=60, rate=60.0)
        plan = SwapPlan("clf", "prod", load, before=0.4, after=2.0, patience=patience)
        async with connect(address) as client:
            result, _ = await measure_swap(
                Asker(client, load.subjects, 5.0),
                wait_flip(address, "clf", "prod"),
                registry,
                plan,
                lambda: publish(registry, tmp_path, b'{"r": 2}'),
            )
        return result

    yield measure
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    await server.stop(None)


async def test_honest_server_swaps_without_a_wrong_reply(swap: Any) -> None:
    result = await swap()
    assert (result["failed"], result["wrong_revision"], result["completed"]) == (0, 0, True)
    assert (result["old_revision"], result["new_revision"]) == (1, 2)
    assert set(result["answered_by"]) == {"1", "2"}
    seconds = result["seconds"]
    assert 0 <= seconds["move_seen"] < 30
    assert 0 < seconds["first_new_answer"] < 30
    assert seconds["publish"] > 0
    assert len(result["timeline"]) == result["requests"] > 30


async def test_old_answers_after_the_flip_are_caught(swap: Any) -> None:
    result = await swap(stale_after_flip=1_000_000)
    assert result["failed"] == 0
    assert set(result["answered_by"]) == {"1"}
    # Replies to requests that were sent before the flip was heard of are no mistake; those of the last 2 s are.
    assert 5 <= result["wrong_revision"] < result["requests"]
    assert "after the flip" in result["wrong_examples"][0]["why"]
    assert not result["completed"]


async def test_wrong_digests_are_caught(swap: Any) -> None:
    result = await swap(wrong_digest_every=10)
    assert result["wrong_revision"] == pytest.approx(result["requests"] / 10, abs=2)


async def test_server_that_never_follows_is_a_result(swap: Any) -> None:
    result = await swap(follows=False, patience=0.5)
    assert not result["completed"]
    assert result["seconds"]["move_seen"] is None
    assert set(result["answered_by"]) == {"1"}
    assert result["wrong_revision"] == 0


def test_move_to_where_the_alias_is_already_is_refused_before_any_load(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry", cache=tmp_path / "cache")
    publish(registry, tmp_path, b'{"r": 1}', "prod")
    options = {
        "server": "127.0.0.1:1", "admin": "127.0.0.1:2", "registry": str(tmp_path / "registry"),
        "adapter": "clf@prod", "task": "classification",
    }  # fmt: skip
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    result = CliRunner().invoke(command, ["swap", *given, "--to", "1"])
    assert isinstance(result.exception, PreconditionError)
    assert (result.exception.reason, result.exception.field) == ("SAME_REVISION", "to")
    assert "clf@prod is revision 1 already" in result.exception.message
