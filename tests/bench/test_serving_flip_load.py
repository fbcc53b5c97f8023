"""Flips under load against a real gRPC server that follows a real registry, rightly or wrongly."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_bench.asking import Asker, connect
from loradeck_bench.load.generator import LoadRun
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.serving.adapters import publish_random
from loradeck_bench.serving.flip_account import account
from loradeck_bench.serving.flips import FlipPlan, choose_prompts, flip_under_load
from loradeck_bench.serving.prompts import prompt_subjects
from loradeck_client import AsyncAdminClient
from loradeck_pocket import BASE
from loradeck_registry.bases.resolve import resolve_base
from loradeck_registry.registry import Registry, Revision
from loradeck_tasks.defaults import default_task

PLAN = FlipPlan(flips=4, adapters=2, replies=0, stretches=2, before=0.8, settle=0.6, patience=10.0)


@dataclass
class Following(inference.InferenceServiceServicer, adapters.AdapterServiceServicer):
    """Answers with the digest that an alias means, followed by looking at the registry."""

    registry: Registry
    names: tuple[str, ...]
    stale: bool = False
    """Answers with the first revision for ever, though it says that it follows."""
    mixed: bool = False
    """Names the new revision and answers like the old one."""
    meaning: dict[str, Revision] = field(default_factory=dict)
    first: dict[str, Revision] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)

    async def follow(self) -> None:
        """Look at the registry every 20 ms."""
        while True:
            for name in self.names:
                found = await asyncio.to_thread(self.registry.resolve, f"{name}@prod")
                before = self.meaning.get(name)
                self.meaning[name] = found
                self.first.setdefault(name, found)
                if before is not None and before.digest != found.digest:
                    flip = adapters.AliasFlip(
                        name=name, alias="prod", previous_revision=before.number, revision=found.number
                    )
                    self.events.append(adapters.WatchAdaptersResponse(alias_flip=flip))
            await asyncio.sleep(0.02)

    async def WatchAdapters(self, request: Any, context: Any) -> AsyncIterator[Any]:
        sent = 0  # a watch that opens late hears of a flip before it too
        while True:
            for event in self.events[sent:]:
                yield event
            sent = len(self.events)
            await asyncio.sleep(0.01)

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        name, _, exact = request.adapter.partition("@")
        digest, answer = "", "base"
        if name:
            revision = await self._revision(name, exact)
            digest, answer = revision.digest, f"{name} {revision.number}"
            if self.mixed and exact == "prod":
                answer = f"{name} 1"
        text = f"{answer}: {request.prompt}"
        yield inference.GenerateResponse(chunk=inference.GenerationChunk(text=text, tokens=8))
        provenance = inference.Provenance(adapter=name or "base", digest=digest)
        usage = inference.Usage(prompt_tokens=3, output_tokens=8)
        yield inference.GenerateResponse(final=inference.GenerationFinal(text=text, provenance=provenance, usage=usage))

    async def _revision(self, name: str, exact: str) -> Revision:
        if exact != "prod":
            return await asyncio.to_thread(self.registry.resolve, f"{name}@{exact}")
        return self.first[name] if self.stale else self.meaning[name]


async def measure(folder: Path, **fault: bool) -> dict[str, Any]:
    """Flips of two names on a server with `fault`; the account."""
    registry = Registry.init(folder / "registry", cache=folder / "cache")
    base = resolve_base(f"dir:{BASE}", registry)
    revisions = {
        name: [
            publish_random(registry, base, name, default_task("generate"), seed=2 * number, alias="prod"),
            publish_random(registry, base, name, default_task("generate"), seed=2 * number + 1),
        ]
        for number, name in enumerate(("a", "b"))
    }
    servicer = Following(Registry.open(folder / "registry", cache=folder / "server"), tuple(revisions), **fault)
    server = grpc.aio.server()
    inference.add_InferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    adapters.add_AdapterServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    following = asyncio.create_task(servicer.follow())
    try:
        async with connect(address) as client, AsyncAdminClient(address) as operator:
            every = prompt_subjects(["", "a@1", "a@2", "b@1", "b@2"], ["x", "y"], 8)
            prompts, golden = await choose_prompts(Asker(client, every), every, 2)
            subjects = prompt_subjects(["", "a@prod", "b@prod"], prompts, 8)
            load = LoadPlan(subjects, 60.0, rate=30.0, arrivals="constant", popularity="round_robin")
            run = LoadRun(Asker(client, subjects))
            flipping = await flip_under_load(run, load, registry, operator, revisions, PLAN, lambda text: None)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await server.stop(None)
    return account(run.records, flipping, {name: pair[0].digest for name, pair in revisions.items()}, golden)


async def test_server_that_follows_has_no_wrong_reply(tmp_path: Path) -> None:
    result = await measure(tmp_path)
    assert (result["flips"], result["failed"], result["wrong_revision"]) == (4, 0, 0), result["wrong_examples"]
    assert (result["flips_never_answered"], result["flips_never_acknowledged"]) == (0, 0)
    # Two calm spans of at least 0.4 s each at 30 requests/s; no request is of a calm span and of a busy one.
    assert result["requests_before"] >= 10
    assert result["requests_during"] > 0
    assert result["requests_before"] + result["requests_during"] <= result["requests"]
    assert result["flip_to_first_token_ms"]["p99"] > 0


@pytest.mark.parametrize(("fault", "why"), [("stale", "did not mean"), ("mixed", "not that of digest")])
async def test_wrong_servers_are_found_out(tmp_path: Path, fault: str, why: str) -> None:
    result = await measure(tmp_path, **{fault: True})
    assert result["failed"] == 0
    assert result["wrong_revision"] > 0
    assert why in result["wrong_examples"][0]["why"]
