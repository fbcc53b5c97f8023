"""One pass against generated labels: against a real server of known speed, and the figures."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import loradeck.inference.v1 as inference
from loradeck_bench.asking import connect
from loradeck_bench.serving.adapters import label_task
from loradeck_bench.serving.classify import ClassifyPlan, choose_prompts, figures, measure_on_server, ways_to_a_label
from loradeck_bench.serving.prompts import Prompt
from loradeck_bench.serving.tables import classify_table
from loradeck_pocket import BASE
from loradeck_registry.bases.resolve import resolve_base
from loradeck_registry.errors import PreconditionError

PROMPTS = [Prompt(f"text {number}", tuple(range(20))) for number in range(8)]
PLAN = ClassifyPlan(rounds=3, single=3, prompt_tokens=20, concurrency=4)


class Labels(inference.InferenceServiceServicer):
    """`seconds` for one pass, and as much for each generated token."""

    seconds = 0.0
    prompt_tokens = 20
    short = ""
    """A text with this in it gets an answer of one token."""

    async def Classify(self, request: Any, context: Any) -> Any:
        assert request.adapter == "one-pass"
        await asyncio.sleep(self.seconds)
        return inference.ClassifyResponse(label="a", usage=inference.Usage(prompt_tokens=self.prompt_tokens))

    async def AnswerShort(self, request: Any, context: Any) -> Any:
        assert request.adapter == "generating"
        tokens = 1 if self.short and self.short in request.question else request.sampling.max_tokens
        await asyncio.sleep(self.seconds * tokens)
        usage = inference.Usage(prompt_tokens=20, output_tokens=tokens)
        return inference.AnswerShortResponse(answer="x", usage=usage)


@pytest.fixture
async def labels() -> AsyncIterator[tuple[str, Labels]]:
    server, servicer = grpc.aio.server(), Labels()
    inference.add_InferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield address, servicer
    await server.stop(None)


@pytest.mark.slow
async def test_ratios_are_those_of_the_server(labels: tuple[str, Labels]) -> None:
    address, servicer = labels
    servicer.seconds = 0.1
    result = await measure_on_server(address, PROMPTS[:4], PLAN, lambda text: None)
    # 1/3.5 and 3.5 on an idle machine; what the machine adds to both ways brings them nearer to 1.
    assert result["latency_ratio"] < 0.7
    assert result["throughput_ratio"] > 1.4
    assert set(result["by_way"]) == {"one_pass", "generated_3", "generated_4"}
    assert result["prompts"] == 4
    assert classify_table(result).row_count == 6


async def test_prompts_with_short_answers_are_left_out(labels: tuple[str, Labels]) -> None:
    address, servicer = labels
    servicer.short = "3"
    async with connect(address) as client:
        found = await choose_prompts(ways_to_a_label(client, PLAN), PROMPTS, PLAN)
        assert [prompt.text for prompt in found] == [prompt.text for prompt in PROMPTS if "3" not in prompt.text]
        servicer.short = "text"
        with pytest.raises(PreconditionError, match="only 0 of 8"):
            await choose_prompts(ways_to_a_label(client, PLAN), PROMPTS, PLAN)


async def test_ways_with_prompts_of_their_own_are_refused(labels: tuple[str, Labels]) -> None:
    address, servicer = labels
    servicer.prompt_tokens = 60
    async with connect(address) as client:
        with pytest.raises(PreconditionError, match=r"\[20, 60\] tokens, not 20"):
            await choose_prompts(ways_to_a_label(client, PLAN), PROMPTS, PLAN)


def test_figures_compare_with_the_mean_of_the_generated_lengths() -> None:
    latency = {"one_pass": [[6.0]] * 3, "generated_3": [[8.0]] * 3, "generated_4": [[12.0]] * 3}
    speed = {"one_pass": [150.0] * 3, "generated_3": [160.0] * 3, "generated_4": [140.0] * 3}
    result = figures(latency, speed)
    assert (result["latency_ratio"], result["throughput_ratio"]) == (0.6, 1.0)
    assert result["latency_ratio_interval"] == [0.6, 0.6]


def test_label_tokens_lie_behind_the_vocabulary() -> None:
    base = resolve_base(f"dir:{BASE}", None)
    task = label_task(base, 9, format="plain", system=None)
    assert [token.id for token in task.added_tokens] == [base.identity.vocabulary + number for number in range(9)]
    assert task.uses_label_tokens
