"""The probe at load: an adapter that does not do what it was trained to do is refused, and leaves no trace."""

from typing import Any

import pytest

import loradeck.adapters.v1 as adapters
import loradeck.inference.v1 as inference
from loradeck_serve.engine.probe import FACTOR
from loradeck_tasks.probe import Probe, ProbePrompt
from tests.serve.conftest import Start
from tests.serve.deck import Deck
from tests.serve.errors import failure
from tests.serve.moves import revision_of


def probe(error: float, distance: float) -> dict[str, Any]:
    """A probe with one candidate, for which the fake engine says -0.1: `error` away from what training is said to have
    seen, which is `distance` away from the base."""
    seen = -0.1 - error
    prompt = ProbePrompt(
        token_ids=(1, 2, 3), candidates=(5,), adapter_logprobs=(seen,), base_logprobs=(seen - distance,)
    )
    return Probe(dtype="float32", prompts=(prompt,), distance=distance).model_dump(mode="json")


def ask(name: str) -> inference.AnswerShortRequest:
    """A request to an adapter."""
    return inference.AnswerShortRequest(adapter=name, question="q", context="c")


@pytest.mark.parametrize(
    ("error", "distance", "reason"),
    [
        (0.0, 1.0, None),
        (FACTOR - 0.01, 1.0, None),
        (FACTOR + 0.01, 1.0, "PROBE_FAILED"),
        (3.0, 1.0, "PROBE_FAILED"),
        (0.0, 0.0001, "INDISTINCT"),
    ],
)
async def test_adapter_must_do_what_training_saw(
    start: Start, deck: Deck, error: float, distance: float, reason: str | None
) -> None:
    deck.publish("probed", "short_qa", 60, probe=probe(error, distance))
    running = await start()
    if reason is None:
        assert (await running.inference.AnswerShort(ask("probed"))).provenance.revision == 1
        return
    failed = await failure(running.inference.AnswerShort(ask("probed")))
    assert (failed.code, failed.reason) == ("FAILED_PRECONDITION", reason)
    assert float(failed.metadata["distance"]) == pytest.approx(distance, rel=1e-3)
    assert running.engine.loaded == {}, "a refused adapter stayed in the engine"


async def test_indistinct_adapter_is_served_when_that_is_allowed(start: Start, deck: Deck) -> None:
    deck.publish("probed", "short_qa", 60, probe=probe(0.0, 0.0001))
    running = await start(allow_indistinct=True)
    assert (await running.inference.AnswerShort(ask("probed"))).answer


async def test_probe_can_be_turned_off(start: Start, deck: Deck) -> None:
    deck.publish("probed", "short_qa", 60, probe=probe(3.0, 1.0))
    running = await start(probe=False)
    assert (await running.inference.AnswerShort(ask("probed"))).answer


async def test_move_to_a_revision_that_fails_its_probe_changes_nothing(start: Start, deck: Deck) -> None:
    revision = deck.publish("clf", "classification", 61, probe=probe(3.0, 1.0))
    running = await start()
    assert await revision_of(running) == 1
    failed = await failure(
        running.admin.MoveAlias(adapters.MoveAliasRequest(name="clf", alias="prod", target=str(revision.number)))
    )
    assert failed.reason == "PROBE_FAILED"
    assert deck.registry.resolve("clf@prod").number == 1
    assert await revision_of(running) == 1
