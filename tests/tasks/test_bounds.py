"""A task and a probe are what a publisher wrote: nothing in them is without bounds, and one line says what is wrong."""

from typing import Any

import pytest

from loradeck_registry.errors import PreconditionError
from loradeck_tasks.defaults import default_task
from loradeck_tasks.stored import stored_probe, stored_task

HUGE = 10**30
PROMPT: dict[str, Any] = {
    "token_ids": [1, 2], "candidates": [3, 4], "adapter_logprobs": [-1.0, -2.0], "base_logprobs": [-2.0, -1.0],
    "greedy": [5],
}  # fmt: skip
PROBE: dict[str, Any] = {"dtype": "float32", "prompts": [PROMPT], "distance": 1.0}


def refused(read: Any, content: dict[str, Any], reason: str) -> None:
    """Reading raises one line with this reason."""
    with pytest.raises(PreconditionError) as raised:
        read(content, "clf@1")
    assert raised.value.reason == reason
    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 500


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": []},
        {"token_ids": [-1]},
        {"token_ids": [HUGE]},
        {"token_ids": [1] * (1 << 18)},
        {"candidates": []},
        {"candidates": [3, -1]},
        {"candidates": [3, HUGE]},
        {"candidates": [3] * 129, "adapter_logprobs": [0.0] * 129, "base_logprobs": [0.0] * 129},
        {"adapter_logprobs": [-1.0]},
        {"base_logprobs": [-1.0] * 3},
        {"adapter_logprobs": [-1.0, float("nan")]},
        {"base_logprobs": [float("-inf"), -1.0]},
        {"greedy": [-1]},
        {"greedy": [1] * 1000},
        {"more": 1},
    ],
)
def test_prompts_of_a_probe_are_bounded(changes: dict[str, Any]) -> None:
    assert stored_probe(PROBE, "clf@1").prompts[0].greedy == (5,)
    refused(stored_probe, PROBE | {"prompts": [PROMPT | changes]}, "BAD_PROBE")


@pytest.mark.parametrize(
    "changes",
    [{"prompts": []}, {"prompts": [PROMPT] * 65}, {"distance": float("inf")}, {"distance": -1}, {"dtype": "x" * 100}],
)
def test_a_probe_is_bounded(changes: dict[str, Any]) -> None:
    refused(stored_probe, PROBE | changes, "BAD_PROBE")


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": HUGE},
        {"max_tokens": 0},
        {"sampling": {"top_k": HUGE}},
        {"sampling": {"top_k": -1}},
        {"sampling": {"temperature": float("nan")}},
        {"sampling": {"top_p": 0}},
        {"stop": ["x"] * 1000},
        {"stop": ["x" * 1000]},
        {"template": "{question}" + "x" * 1_000_000},
        {"system": "x" * 1_000_000},
        {"added_tokens": [{"content": "<a>", "id": HUGE}]},
        {"added_tokens": [{"content": "<a>", "id": -1}]},
        {"added_tokens": [{"content": f"<{number}>", "id": number} for number in range(65)]},
    ],
)
def test_a_task_is_bounded(changes: dict[str, Any]) -> None:
    good = default_task("short_qa").model_dump(mode="json")
    assert stored_task(good, "short@1").kind == "short_qa"
    refused(stored_task, good | changes, "BAD_TASK")
