"""What is served as the base: a plain folder, a base of the registry, or a full checkpoint with a task of its own."""

from pathlib import Path

import pytest

import loradeck.inference.v1 as inference
import loradeck_pocket
from loradeck_registry.bases.resolve import add_base, resolve_base
from loradeck_registry.errors import InvalidError, PreconditionError
from loradeck_registry.publish import push_folder
from loradeck_registry.registry import Revision
from loradeck_serve.config import ServerConfig
from loradeck_serve.engine_start import engine_settings, served_base
from loradeck_serve.sources import Sources
from tests.serve.conftest import Start
from tests.serve.deck import LABELS, Deck
from tests.serve.errors import failure

CLASSIFY = inference.ClassifyRequest


def publish_full(deck: Deck) -> Revision:
    """The base itself as a full checkpoint of a classifier with text labels."""
    task = deck.task("classification", label_tokens=False)
    return push_folder(deck.registry, "clf-full", deck.base.folder, deck.base, task=task, alias="prod")


async def test_full_checkpoint_answers_its_own_task_by_its_name_and_without_one(start: Start, deck: Deck) -> None:
    revision = publish_full(deck)
    running = await start(base="clf-full@prod")
    for adapter in ("", "clf-full", "clf-full@1", "clf-full@prod", f"clf-full@{revision.digest}"):
        reply = await running.inference.Classify(CLASSIFY(adapter=adapter, text="x"))
        assert {p.label for p in reply.probabilities} == set(LABELS)
        by = reply.provenance
        assert (by.adapter, by.revision, by.digest, by.requested) == ("clf-full", 1, revision.digest, adapter)
        assert by.residency == inference.RESIDENCY_UNSPECIFIED


async def test_full_checkpoint_refuses_other_tasks_and_other_revisions_by_its_name(start: Start, deck: Deck) -> None:
    publish_full(deck)
    running = await start(base="clf-full")
    wrong = await failure(
        running.inference.AnswerShort(inference.AnswerShortRequest(adapter="clf-full", question="q", context="c"))
    )
    assert (wrong.code, wrong.reason) == ("FAILED_PRECONDITION", "WRONG_TASK")
    other = await failure(running.inference.Classify(CLASSIFY(adapter="clf-full@2", text="x")))
    assert (other.code, other.reason) == ("FAILED_PRECONDITION", "OTHER_REVISION")


async def test_full_checkpoint_asked_of_another_base_is_no_adapter(start: Start, deck: Deck) -> None:
    publish_full(deck)
    running = await start()
    failed = await failure(running.inference.Classify(CLASSIFY(adapter="clf-full", text="x")))
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", "NOT_AN_ADAPTER")
    assert "--base" in failed.message


async def test_base_of_the_registry_says_its_revision(start: Start, deck: Deck) -> None:
    revision = add_base(deck.registry, "tiny", f"dir:{deck.base.folder}")
    running = await start(base="tiny")
    reply = await running.inference.Classify(CLASSIFY(text="x", labels=["a", "b"]))
    by = reply.provenance
    assert (by.adapter, by.revision, by.digest) == ("tiny", 1, revision.digest)
    assert (await running.inference.Classify(CLASSIFY(adapter="clf", text="x"))).provenance.adapter == "clf"


async def test_base_from_a_folder_hides_no_adapter_of_its_name(start: Start, deck: Deck, tmp_path: Path) -> None:
    folder = tmp_path / "clf"
    folder.symlink_to(deck.base.folder)
    running = await start(base=f"dir:{folder}")
    assert running.server.base_name == "clf"
    assert (await running.inference.Classify(CLASSIFY(adapter="clf", text="x"))).provenance.revision == 1


def test_engine_gets_its_own_settings_and_vllm_the_rest(deck: Deck) -> None:
    config = ServerConfig.model_validate(
        {"base": f"dir:{deck.base.folder}", "registry": deck.url, "engine": {"dtype": "float32", "block_size": 32}}
    )
    settings = engine_settings(config, served_base(config, resolve_base(config.base, deck.registry)))
    assert settings.dtype == "float32"
    assert settings.engine == {"block_size": 32}
    assert (settings.slots, settings.host_adapters, settings.vocabulary) == (4, 16, deck.base.identity.vocabulary)


def test_pocket_base_is_a_base_as_for_training(deck: Deck) -> None:
    config = ServerConfig.model_validate({"base": "pocket:base"})
    base = served_base(config, resolve_base(config.base, None))
    assert base.name == "pocket"
    assert base.folder == loradeck_pocket.BASE
    assert base.identity.reference == "pocket:base"


@pytest.mark.parametrize("base", ["pocket:other", "file:base", "pocket:base@2"])
def test_base_of_an_unknown_kind_is_refused_with_what_there_is(base: str) -> None:
    with pytest.raises(InvalidError, match=r"hub:org/name, dir:folder or pocket:base"):
        ServerConfig.model_validate({"base": base})


def test_whole_embeddings_are_asked_for_among_the_engines_settings(deck: Deck) -> None:
    values = {"base": f"dir:{deck.base.folder}", "registry": deck.url}
    for engine, wanted in (({}, False), ({"embedding_lora": True}, True)):
        config = ServerConfig.model_validate(values | {"engine": engine})
        settings = engine_settings(config, served_base(config, resolve_base(config.base, deck.registry)))
        assert settings.embedding_lora == wanted
        assert settings.engine == {}
        size = Sources.find(config).bytes_per_rank
        # The tiny base has two layers and 384 rows of 128; two bytes a value.
        layers = 2 * (2 * 256 + 2 * (128 + 64) + 3 * (128 + 256))
        assert size == 2 * (layers + (2 * (384 + 128) if wanted else 0))


def test_cache_that_cannot_be_written_is_found_before_the_engine_starts(deck: Deck, tmp_path: Path) -> None:
    # Permissions do not stop an administrator; a file where a folder must be stops everybody.
    (tmp_path / "cache").write_text("")
    config = ServerConfig.model_validate(
        {"base": f"dir:{deck.base.folder}", "registry": deck.url, "cache": tmp_path / "cache"}
    )
    with pytest.raises(PreconditionError, match="cannot write to the cache"):
        Sources.find(config)


def test_server_without_registry_needs_no_slots(deck: Deck) -> None:
    config = ServerConfig.model_validate({"base": f"dir:{deck.base.folder}"})
    assert engine_settings(config, served_base(config, resolve_base(config.base, None))).slots == 0


@pytest.mark.parametrize("name", ["Qwen2.5 Instruct!", "...", "Ünïcode"])
def test_any_folder_name_makes_a_base_name(deck: Deck, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.symlink_to(deck.base.folder)
    config = ServerConfig.model_validate({"base": f"dir:{folder}"})
    assert served_base(config, resolve_base(config.base, None)).name
