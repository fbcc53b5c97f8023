"""Keys and grants at the doors: who is refused, with which status and reason, and that nothing else is learned."""

import asyncio
import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_serve.access.keys import utc_now
from tests.serve.access.certificates import Authority
from tests.serve.access.people import People, with_key
from tests.serve.conftest import Running, Start
from tests.serve.deck import Deck
from tests.serve.errors import failure
from tests.serve.waiting import until

CLASSIFY = inference.ClassifyRequest(adapter="clf", text="x")
ALL = {"adapters": ["*"], "rpcs": ["inference", "admin"]}
UNAUTHENTICATED, DENIED, EXHAUSTED = "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"


async def refusal(running: Running, key: str | None, request: Any = CLASSIFY, method: str = "Classify") -> Any:
    """A refused call: code and reason."""
    stub = running.inference if hasattr(running.inference, method) else running.admin
    failed = await failure(getattr(stub, method)(request, metadata=with_key(key) if key is not None else None))
    return failed


async def test_without_good_credentials_nobody_gets_in(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, web=ALL)
    good, revoked, expired = people.key("web"), people.key("web"), people.expired_key("web")
    stranger = people.key("nobody")
    people.revoke(revoked)
    running = await start(access=people.settings)
    assert (await running.inference.Classify(CLASSIFY, metadata=with_key(good))).label
    forged = good[:-1] + ("A" if good[-1] != "A" else "B")
    cases = {
        None: (UNAUTHENTICATED, "NO_CREDENTIALS"),
        "": (UNAUTHENTICATED, "BAD_KEY"),
        "password": (UNAUTHENTICATED, "BAD_KEY"),
        forged: (UNAUTHENTICATED, "BAD_KEY"),
        f"ldk_aaaaaaaa_{'a' * 43}": (UNAUTHENTICATED, "BAD_KEY"),
        # What became of a key is told only to whoever has it.
        revoked[:-1] + ("A" if revoked[-1] != "A" else "B"): (UNAUTHENTICATED, "BAD_KEY"),
        revoked: (UNAUTHENTICATED, "KEY_REVOKED"),
        expired: (UNAUTHENTICATED, "KEY_EXPIRED"),
        stranger: (DENIED, "NO_GRANTS"),
    }
    for key, expected in cases.items():
        failed = await refusal(running, key)
        assert (failed.code, failed.reason) == expected, key
        assert "\n" not in failed.message
        assert (await refusal(running, key, adapters.ListAdaptersRequest(), "ListAdapters")).code == expected[0]
    odd = await failure(running.inference.Classify(CLASSIFY, metadata=(("authorization", f"Basic {good}"),)))
    assert odd.reason == "BAD_KEY"
    # A claimed name is no identity.
    claimed = await failure(running.inference.Classify(CLASSIFY, metadata=(("x-loradeck-caller", "web"),)))
    assert claimed.reason == "NO_CREDENTIALS"


async def test_health_needs_no_key_and_reflection_does(start: Start, tmp_path: Path) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    people = People(tmp_path, web=ALL)
    running = await start(access=people.settings)
    async with grpc.aio.insecure_channel(str(running.server.addresses.inference)) as channel:
        check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        assert (await failure(stub.ServerReflectionInfo(iter([ask])))).reason == "NO_CREDENTIALS"
        key = with_key(people.key("web"))

        async def listed() -> bool:
            try:
                replies = [reply async for reply in stub.ServerReflectionInfo(iter([ask]), metadata=key)]
            except grpc.RpcError:
                return False
            return bool(replies[0].list_services_response.service)

        await until(listed)


async def test_what_is_not_granted_is_refused_before_anything_is_looked_up(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, web={"adapters": ["clf*"]}, reader={"adapters": ["clf"], "rpcs": ["read"]})
    web, reader = people.key("web"), people.key("reader")
    running = await start(access=people.settings)
    for adapter in ("clf", "clf-text", "clf@1"):
        request = inference.ClassifyRequest(adapter=adapter, text="x")
        assert (await running.inference.Classify(request, metadata=with_key(web))).label
    refused = {}
    for adapter in ("short", "absent", "short@99", "absent@99", f"short@sha256:{'0' * 64}"):
        request = inference.AnswerShortRequest(adapter=adapter, question="q", context="c")
        failed = await refusal(running, web, request, "AnswerShort")
        assert (failed.code, failed.reason) == (DENIED, "NOT_GRANTED")
        refused[adapter] = failed.message.replace(adapter.partition("@")[0], "NAME")
    assert len(set(refused.values())) == 1, "an adapter that exists and one that does not are told apart"
    assert not [digest for digest in running.engine.loads if digest not in running.engine.loaded]
    # Within the grant an absent name is absent; what there is instead is not said, it might not be granted.
    absent = await refusal(running, web, inference.ClassifyRequest(adapter="clfshort", text="x"))
    assert (absent.code, absent.reason) == ("NOT_FOUND", "NAME_NOT_FOUND")
    assert absent.message == "there is no 'clfshort' here: check the name"
    # The base is a name like any other.
    assert (await refusal(running, web, inference.ClassifyRequest(text="x", labels=["a", "b"]))).reason == "NOT_GRANTED"
    # Methods.
    for key, request, method in (
        (web, adapters.LoadAdapterRequest(adapter="clf"), "LoadAdapter"),
        (reader, adapters.UnloadAdapterRequest(adapter="clf"), "UnloadAdapter"),
        (reader, CLASSIFY, "Classify"),
    ):
        failed = await refusal(running, key, request, method)
        assert (failed.code, failed.reason, failed.metadata["method"]) == (DENIED, "NOT_GRANTED", method)
    listed = await running.admin.ListAdapters(adapters.ListAdaptersRequest(), metadata=with_key(reader))
    assert {adapter.name for adapter in listed.adapters} == {"clf"}
    hidden = await refusal(running, reader, adapters.GetAdapterRequest(adapter="clf-text"), "GetAdapter")
    assert hidden.reason == "NOT_GRANTED"
    watched = running.admin.WatchAdapters(adapters.WatchAdaptersRequest(), metadata=with_key(reader))
    assert (await watched.read()).adapter.name == "clf"
    await running.inference.Classify(inference.ClassifyRequest(adapter="clf-text", text="x"), metadata=with_key(web))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watched.read(), 0.5)
    watched.cancel()


async def test_a_key_and_grants_change_while_the_server_runs(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, web={"adapters": ["clf"], "rpcs": ["inference", "read"]})
    key = people.key("web")
    running = await start(access=people.settings)
    assert (await running.inference.Classify(CLASSIFY, metadata=with_key(key))).label
    new = people.key("web")

    async def taken() -> bool:
        try:
            return bool((await running.inference.Classify(CLASSIFY, metadata=with_key(new))).label)
        except grpc.RpcError:
            return False

    await until(taken)
    # A file that makes no sense changes nothing.
    people.callers.write_text("callers: {web: {adaptors: [clf]}}")
    await asyncio.sleep(1.5)
    assert await taken()
    people.allow(web={"adapters": ["short"], "rpcs": ["inference", "read"]})

    async def lost() -> bool:
        return not await taken()

    await until(lost)
    assert (await refusal(running, new)).reason == "NOT_GRANTED"
    # A stream that is open when its key is revoked ends with the reason.
    watched = running.admin.WatchAdapters(adapters.WatchAdaptersRequest(), metadata=with_key(key))
    ended = asyncio.create_task(failure(watched))
    await asyncio.sleep(0.2)
    people.revoke(key)
    async with asyncio.timeout(10):
        failed = await ended
    assert (failed.code, failed.reason) == (UNAUTHENTICATED, "KEY_REVOKED")
    assert (await refusal(running, key)).reason == "KEY_REVOKED"


async def test_an_expiring_key_ends_its_streams(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, web=ALL)
    key = people.key("web", utc_now() + timedelta(seconds=4))
    running = await start(access=people.settings)
    watched = running.admin.WatchAdapters(adapters.WatchAdaptersRequest(), metadata=with_key(key))
    async with asyncio.timeout(15):
        failed = await failure(watched)
    assert failed.reason == "KEY_EXPIRED"


async def test_a_certificate_is_an_identity(start: Start, tmp_path: Path) -> None:
    from loradeck_client import AsyncClient, DeniedError, RetryPolicy, UnauthenticatedError

    authority = Authority(tmp_path)
    certificate, private = authority.server()
    people = People(
        tmp_path,
        web={"adapters": ["clf"], "certificates": ["web.example.org"]},
        batch={"adapters": ["short"], "certificates": ["batch"]},
    )
    tls = {"certificate": certificate, "key": private, "client_ca": authority.file}
    running = await start(access=people.settings, tls=tls)
    where, once = str(running.server.addresses.inference), RetryPolicy(attempts=1)
    async with AsyncClient(where, access=authority.client("x", "web.example.org"), retry=once) as client:
        assert (await client.classify("x", adapter="clf")).label
        with pytest.raises(DeniedError):
            await client.answer_short("q", context="c", adapter="short")
    async with AsyncClient(where, access=authority.client("batch"), retry=once) as client:
        assert (await client.answer_short("q", context="c", adapter="short")).text
    async with AsyncClient(where, access=authority.client("stranger"), retry=once) as client:
        with pytest.raises(UnauthenticatedError) as raised:
            await client.classify("x", adapter="clf")
        assert raised.value.reason == "UNKNOWN_CERTIFICATE"


async def test_weighted_aliases_and_history_go_by_the_authenticated_name(
    start: Start, tmp_path: Path, deck: Deck
) -> None:
    names = [f"caller-{n}" for n in range(12)]
    people = People(tmp_path, ops=ALL, **{name: {"adapters": ["*"]} for name in names})
    keys = {name: with_key(people.key(name)) for name in names}
    ops = with_key(people.key("ops"))
    deck.publish("clf", "classification", 2)
    entry = deck.registry.move_alias("clf", "canary", {"1": 50, "2": 50})
    running = await start(access=people.settings)
    request = inference.ClassifyRequest(adapter="clf@canary", text="x")
    for name, key in keys.items():
        # What a caller says of itself changes nothing.
        for claimed in ("one", "two"):
            reply = await running.inference.Classify(request, metadata=(*key, ("x-loradeck-caller", claimed)))
            assert reply.provenance.revision == entry.draw(name).revision
    assert {entry.draw(name).revision for name in names} == {1, 2}
    move = adapters.MoveAliasRequest(name="clf", alias="canary", target="1", reason="test")
    await running.admin.MoveAlias(move, metadata=(*ops, ("x-loradeck-caller", "somebody-else")))
    assert deck.registry.history("clf", "canary")[0].who == "ops"


async def test_every_action_of_operators_is_in_the_audit_log(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, ops=ALL, web={"adapters": ["clf"]})
    ops, web, stranger = with_key(people.key("ops")), people.key("web"), with_key(people.key("stranger"))
    log = tmp_path / "audit.jsonl"
    running = await start(access=people.settings, audit_log=str(log))
    # As an import of vLLM does, which configures logging anew: all handlers that there are get closed.
    logging.shutdown()
    await running.admin.LoadAdapter(adapters.LoadAdapterRequest(adapter="clf"), metadata=ops)
    move = adapters.MoveAliasRequest(name="clf", alias="prod", target="1", reason="because")
    await running.admin.MoveAlias(move, metadata=ops)
    # logrotate moves the file away: the next line opens a new one.
    log.rename(tmp_path / "audit.jsonl.1")
    await failure(running.admin.PinAdapter(adapters.PinAdapterRequest(adapter="absent"), metadata=ops))
    await refusal(running, web, adapters.UnloadAdapterRequest(adapter="clf"), "UnloadAdapter")
    # Who says who he is has proven nothing.
    await failure(running.admin.ListAdapters(adapters.ListAdaptersRequest(), metadata=(("x-loradeck-caller", "ops"),)))
    await failure(
        running.admin.ListAdapters(adapters.ListAdaptersRequest(), metadata=(*stranger, ("x-loradeck-caller", "ops")))
    )
    await running.admin.ListAdapters(adapters.ListAdaptersRequest(), metadata=ops)
    people.revoke(web)

    async def noticed() -> bool:
        return "revoked" in log.read_text()

    await until(noticed)
    first = [json.loads(line) for line in (tmp_path / "audit.jsonl.1").read_text().splitlines()]
    second = [json.loads(line) for line in log.read_text().splitlines()]
    digest = (await running.admin.GetAdapter(adapters.GetAdapterRequest(adapter="clf"), metadata=ops)).adapter.digest
    assert [(e["action"], e["who"], e["result"], e["digest"]) for e in first] == [
        ("LoadAdapter", "ops", "OK", digest),
        ("MoveAlias", "ops", "OK", digest),
    ]
    assert first[1]["adapter"] == "clf@prod"
    assert first[1]["why"] == "because"
    assert all(e["proof"] == "key" and e["key"] == ops[0][1].split("_")[1] and e["request_id"] for e in first)
    assert [(e["action"], e.get("who"), e.get("result"), e.get("reason")) for e in second[:4]] == [
        ("PinAdapter", "ops", "NOT_FOUND", "NAME_NOT_FOUND"),
        ("UnloadAdapter", "web", DENIED, "NOT_GRANTED"),
        ("ListAdapters", "", UNAUTHENTICATED, "NO_CREDENTIALS"),
        ("ListAdapters", "stranger", DENIED, "NO_GRANTS"),
    ]
    assert second[4] | {"time": ""} == {
        "time": "", "action": "Keys", "change": "revoked", "key": web.split("_")[1], "caller": "web",
    }  # fmt: skip
    assert not any(key in log.read_text() for key in (web, ops[0][1]))


async def test_a_flood_of_refused_calls_does_not_fill_the_disk_with_its_audit(start: Start, tmp_path: Path) -> None:
    people = People(tmp_path, ops=ALL)
    ops, log = with_key(people.key("ops")), tmp_path / "audit.jsonl"
    running = await start(access=people.settings, audit_log=str(log))
    for _ in range(300):
        await refusal(running, None, adapters.ListAdaptersRequest(), "ListAdapters")
    # What is done is written, whatever else there is.
    await running.admin.LoadAdapter(adapters.LoadAdapterRequest(adapter="clf"), metadata=ops)
    await asyncio.sleep(0.3)
    await refusal(running, None, adapters.ListAdaptersRequest(), "ListAdapters")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    refused = [line for line in lines if line["result"] == "UNAUTHENTICATED"]
    assert 100 <= len(refused) < 200
    assert len(refused) + sum(line.get("refusals_left_out", 0) for line in refused) == 301
    assert [line["action"] for line in lines if line["result"] == "OK"] == ["LoadAdapter"]
