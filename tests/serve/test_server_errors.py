"""Every error a caller can cause: its code, its reason, its field."""

import grpc
import pytest
from google.protobuf.message import Message

import loradeck.inference.v1 as inference
from loradeck_registry.errors import PreconditionError, UnavailableError
from loradeck_serve.engine.base import EngineInfo
from loradeck_serve.engine_handle import EngineHandle
from loradeck_serve.grpc.status import Curtain
from tests.serve.conftest import Start
from tests.serve.deck import Deck
from tests.serve.errors import failure

CLASSIFY = inference.ClassifyRequest
SHORT = inference.AnswerShortRequest
LONG = inference.AnswerLongRequest
GENERATE = inference.GenerateRequest
SAMPLING = inference.Sampling
BATCH = inference.BatchClassifyRequest
BAD, REFUSED = "INVALID_ARGUMENT", "FAILED_PRECONDITION"


def fields(**values: str) -> inference.TemplateFields:
    """Values of a template."""
    return inference.TemplateFields(values=values)


CASES = {
    "unknown adapter": ("Classify", CLASSIFY(adapter="nope", text="x"), "NOT_FOUND", "NAME_NOT_FOUND", ""),
    "unknown revision": ("Classify", CLASSIFY(adapter="clf@99", text="x"), "NOT_FOUND", "REVISION_NOT_FOUND", ""),
    "unknown alias": ("Classify", CLASSIFY(adapter="clf@canary", text="x"), "NOT_FOUND", "ALIAS_NOT_FOUND", ""),
    "bad name": ("Classify", CLASSIFY(adapter="../clf", text="x"), BAD, "BAD_NAME", "adapter"),
    "bad selector": ("Classify", CLASSIFY(adapter="clf@0", text="x"), BAD, "BAD_REFERENCE", "adapter"),
    "empty text": ("Classify", CLASSIFY(adapter="clf", text=" \n"), BAD, "EMPTY_FIELD", "text"),
    "long text": ("Classify", CLASSIFY(adapter="clf", text="x" * 9001), BAD, "TEXT_TOO_LONG", "text"),
    "long prompt": ("Classify", CLASSIFY(adapter="clf", text="x " * 900), BAD, "PROMPT_TOO_LONG", "text"),
    "unknown label": (
        "Classify", CLASSIFY(adapter="clf", text="x", labels=["Economy", "Sport"]),
        BAD, "UNKNOWN_LABEL", "labels",
    ),
    "same label twice": (
        "Classify", CLASSIFY(adapter="clf", text="x", labels=["Economy", "Economy"]),
        BAD, "BAD_LABELS", "labels",
    ),
    "labels without end": (
        "Classify", CLASSIFY(text="x", labels=[f"{number} " + "z" * 100 for number in range(100)]),
        BAD, "LABELS_TOO_LONG", "labels",
    ),
    "base without labels": ("Classify", CLASSIFY(text="x"), BAD, "LABELS_REQUIRED", "labels"),
    "empty batch": ("BatchClassify", BATCH(adapter="clf"), BAD, "OUT_OF_RANGE", "texts"),
    "batch with an empty text": (
        "BatchClassify", BATCH(adapter="clf", texts=["a", ""]),
        BAD, "EMPTY_FIELD", "texts[1]",
    ),
    "classify with a QA adapter": ("Classify", CLASSIFY(adapter="short", text="x"), REFUSED, "WRONG_TASK", ""),
    "question for a classifier": (
        "AnswerLong", LONG(adapter="clf", question="q", context="c"), "FAILED_PRECONDITION", "WRONG_TASK", "",
    ),
    "no question": ("AnswerShort", SHORT(adapter="short", context="c"), BAD, "EMPTY_FIELD", "question"),
    "no context": ("AnswerLong", LONG(adapter="long", question="q"), BAD, "EMPTY_FIELD", "context"),
    "temperature": (
        "AnswerShort", SHORT(adapter="short", question="q", context="c", sampling=SAMPLING(temperature=3)),
        BAD, "OUT_OF_RANGE", "sampling.temperature",
    ),
    "not a number": (
        "AnswerShort", SHORT(adapter="short", question="q", context="c", sampling=SAMPLING(top_p=float("nan"))),
        BAD, "OUT_OF_RANGE", "sampling.top_p",
    ),
    "max_tokens": (
        "AnswerLong", LONG(adapter="long", question="q", context="c", sampling=SAMPLING(max_tokens=0)),
        BAD, "OUT_OF_RANGE", "sampling.max_tokens",
    ),
    "stop": (
        "Generate", GENERATE(prompt="x", sampling=SAMPLING(stop=["a"] * 9)), BAD, "OUT_OF_RANGE", "sampling.stop",
    ),
    "nothing to generate from": ("Generate", GENERATE(adapter="free"), BAD, "EMPTY_FIELD", "input"),
    "missing template field": (
        "Generate", GENERATE(adapter="free", fields=fields(what="x")),
        BAD, "MISSING_FIELD", "fields.topic",
    ),
    "template field of nobody": (
        "Generate", GENERATE(adapter="free", fields=fields(what="x", topic="y", z="z")),
        BAD, "UNKNOWN_FIELD", "fields.z",
    ),
    "fields for the base": (
        "Generate", GENERATE(fields=fields(prompt="x")), BAD, "NO_TEMPLATE", "fields",
    ),
    "message for an adapter": ("Generate", GENERATE(adapter="free", message="x"), BAD, "NOT_A_BASE", "message"),
}  # fmt: skip


async def test_each_bad_request_gets_its_code_reason_and_field(start: Start, deck: Deck) -> None:
    running = await start(limits={"text_characters": 9000})
    for name, (method, request, code, reason, field) in CASES.items():
        failed = await failure(getattr(running.inference, method)(request))
        assert (failed.code, failed.reason, failed.field) == (code, reason, field), name
        assert failed.metadata["request_id"], name
        assert str(deck.folder) not in failed.message, f"{name}: a path of the server's machine is shown"
    # None of it disturbed the server.
    reply = await running.inference.Classify(CLASSIFY(adapter="clf", text="x"))
    assert reply.provenance.revision == 1


@pytest.mark.parametrize(
    ("adapter", "labels", "said"),
    [
        ("", ["Economy", "Health", "Economy"], "holds 'Economy' twice"),
        ("clf", ["Economy", "Health", "Economy"], "holds 'Economy' twice"),
        ("", ["Economy", ""], "holds an empty label"),
        ("", ["Economy", "z" * 129], f"the label '{'z' * 40}'… has 129 characters: give at most 128"),
        ("", [str(number) for number in range(129)], "holds 129 labels: give at most 128"),
    ],
)
async def test_bad_labels_name_the_label_and_the_rule(start: Start, adapter: str, labels: list[str], said: str) -> None:
    running = await start()
    failed = await failure(running.inference.Classify(CLASSIFY(adapter=adapter, text="x", labels=labels)))
    assert (failed.code, failed.reason, failed.field) == (BAD, "BAD_LABELS", "labels")
    assert said in failed.message


async def test_whole_numbers_are_shown_as_such(start: Start) -> None:
    running = await start()
    failed = await failure(running.inference.Generate(GENERATE(prompt="x", sampling=SAMPLING(max_tokens=1_000_000))))
    assert failed.message.startswith("`sampling.max_tokens` is 1000000: it must be 1 to ")


async def test_too_long_prompt_says_both_counts(start: Start) -> None:
    running = await start()
    failed = await failure(running.inference.AnswerShort(SHORT(adapter="short", question="q", context="word " * 600)))
    assert failed.field == "context"
    assert failed.metadata["context_tokens"] == "512"
    assert int(failed.metadata["prompt_tokens"]) > 600
    assert failed.metadata["prompt_tokens"] in failed.message


async def test_adapter_of_another_base_is_refused_with_both_digests(start: Start, deck: Deck, tmp_path: object) -> None:
    from tests.serve.deck import make_deck

    other = make_deck(deck.folder / "other", base_seed=9)
    foreign = Deck(deck.folder / "foreign", other.base, deck.registry)
    foreign.publish("foreign", "short_qa", 1)
    running = await start()
    failed = await failure(running.inference.AnswerShort(SHORT(adapter="foreign", question="q", context="c")))
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "BASE_MISMATCH")
    assert failed.metadata["adapter_base"] == other.base.identity.compatibility
    assert failed.metadata["served_base"] == deck.base.identity.compatibility
    for base in (other.base, deck.base):
        assert f"compatibility {base.identity.compatibility[:19]}" in failed.message


async def test_rank_over_the_limit_is_refused(start: Start) -> None:
    running = await start(max_rank=1)
    failed = await failure(running.inference.AnswerShort(SHORT(adapter="short", question="q", context="c")))
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "RANK_TOO_LARGE")
    assert not running.engine.loads


async def test_damaged_blob_is_refused_and_neighbours_live(start: Start, deck: Deck) -> None:
    revision = deck.registry.resolve("short")
    blob = next(f for f in revision.manifest.files if f.path == "adapter_model.safetensors").sha256
    path = deck.folder / "registry" / "blobs" / "sha256" / blob[:2] / blob
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    running = await start()
    failed = await failure(running.inference.AnswerShort(SHORT(adapter="short", question="q", context="c")))
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "DAMAGED")
    # The object's key, which `registry verify` names too, and not where the registry is.
    assert f"blobs/sha256/{blob[:2]}/{blob} in the registry does not match" in failed.message
    assert str(deck.folder) not in failed.message
    assert not running.engine.loads
    assert (await running.inference.Classify(CLASSIFY(adapter="clf", text="x"))).label


async def test_unknown_exception_is_internal_and_shows_its_request_id_only(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start()

    async def broken(*_: object, **__: object) -> Message:
        raise RuntimeError("secret inner text")

    monkeypatch.setattr(running.engine, "score", broken)
    call = running.inference.Classify(CLASSIFY(adapter="clf", text="x"), metadata=(("x-request-id", "my-id"),))
    failed = await failure(call)
    assert (failed.code, failed.reason) == ("INTERNAL", "INTERNAL")
    assert failed.metadata == {"request_id": "my-id"}
    assert "secret" not in failed.message


async def test_server_without_registry_serves_its_base_alone(start: Start) -> None:
    running = await start(registry=None)
    failed = await failure(running.inference.Classify(CLASSIFY(adapter="clf", text="x")))
    assert (failed.code, failed.reason) == ("NOT_FOUND", "NO_REGISTRY")
    reply = await running.inference.Classify(CLASSIFY(text="x", labels=["a", "b"]))
    assert reply.provenance.adapter == "base"
    assert reply.provenance.digest == ""


async def test_a_method_that_does_not_exist_is_unimplemented(start: Start) -> None:
    running = await start()
    channel = grpc.aio.insecure_channel(str(running.server.addresses.inference))
    call = channel.unary_unary("/loradeck.inference.v1.InferenceService/Nothing")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await channel.close()


async def test_two_servers_on_one_port_are_refused_with_one_line(start: Start) -> None:
    running = await start()
    addresses = running.server.addresses
    for door in ("inference", "admin", "metrics"):
        with pytest.raises(PreconditionError) as raised:
            await start(**{door: getattr(addresses, door).port})
        assert raised.value.reason == "PORT_IN_USE", door
        assert str(getattr(addresses, door)) in raised.value.message
        assert "\n" not in raised.value.message
    reply = await running.inference.Classify(CLASSIFY(adapter="clf", text="x"))
    assert reply.provenance.revision == 1


async def test_log_of_a_failed_call_names_what_was_asked_for(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = await start()
    with caplog.at_level("DEBUG", "loradeck_serve"):
        await failure(running.inference.Classify(CLASSIFY(adapter="nope", text="x")))
        await failure(running.inference.Classify(CLASSIFY(text="x")))
        await running.inference.Classify(CLASSIFY(adapter="clf@1", text="x"))
    calls = [vars(record)["adapter"] for record in caplog.records if record.message == "call"]
    assert calls == ["nope", "base", "clf"]


def test_a_server_without_an_engine_says_whether_it_starts_or_restarts() -> None:
    handle = EngineHandle()
    with pytest.raises(UnavailableError) as first:
        handle.get()
    assert first.value.reason == "ENGINE_STARTING"
    handle._info = EngineInfo("fake", 1, 1, 0, 0, 0, "float32", 0)
    with pytest.raises(UnavailableError) as later:
        handle.get()
    assert later.value.reason == "ENGINE_RESTARTING"


def test_places_are_named_and_nothing_else_is_touched() -> None:
    curtain = Curtain({"/srv/registry": "the registry", "/srv/registry/cache": "the cache"})
    assert curtain.hide("the registry /srv/registry holds 3 names") == "the registry holds 3 names"
    assert curtain.hide("no file x in /srv/registry/cache/7") == "no file x in the cache/7"
    assert curtain.hide("label /srv is unknown") == "label /srv is unknown"
