"""The adapter operations against a plain reference, in the worker, before it serves: a wrong one must not start."""

from typing import Any

import torch

from loradeck_serve.engine.plugin.punica import GroupedPunicaWrapper

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest accepted difference, relative to the largest value."""


class SelfTestError(RuntimeError):
    """The operations do not give what the reference gives."""


def self_test(lora_config: Any, dtype: torch.dtype) -> None:
    """Run linear, embedding and logits operations through vLLM's own call path and compare. Raises SelfTestError.

    The batch mixes tokens of every slot with tokens of none, and the last slot holds NaN and has no token: the stock
    operations would read exactly that slot for tokens without an adapter.
    """
    from vllm.lora.layers import LoRAMapping

    slots, rank = int(lora_config.max_loras), int(lora_config.max_lora_rank)
    total = slots + 1
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    inputs, width = 32, 48
    a, b = random(total, 1, rank, inputs), random(total, 1, width, rank)
    a[slots:], b[slots:] = float("nan"), float("nan")
    config = type("Config", (), {"max_loras": total, "max_lora_rank": rank})()
    wrapper = GroupedPunicaWrapper(64, 64, "cpu", lora_config=config)
    rows = [0, *range(1, slots + 1), 0, *range(slots, 0, -1), 0][:64]
    for mapping in (rows, [0] * len(rows), [1] * len(rows)):
        ids: list[int | None] = [*range(1, slots + 1), None]
        wrapper.update_metadata(LoRAMapping(tuple(mapping), tuple(mapping), is_prefill=True), ids, total + 1, width)
        index = torch.tensor([number - 1 for number in mapping])
        x, y = random(len(mapping), inputs), random(len(mapping), width)
        linear = y.clone()
        wrapper.add_lora_linear(linear, x, (a,), (b,), 1.0, (width,))
        _compare("linear", linear, reference_add(y, x, a, b, index), y, index)
        logits = y.clone()
        wrapper.add_lora_logits(logits, x, a, b, 1.0)
        _compare("logits", logits, reference_add(y, x, a, b, index), y, index)
        looked_up = random(len(mapping), rank)
        embedded = y.clone()
        wrapper.add_lora_embedding(embedded, looked_up, b)
        one = torch.eye(rank, dtype=dtype).expand(total, 1, rank, rank)
        _compare("embedding", embedded, reference_add(y, looked_up, one, b, index), y, index)


def _compare(name: str, found: torch.Tensor, wanted: torch.Tensor, before: torch.Tensor, slots: torch.Tensor) -> None:
    if not torch.equal(found[slots < 0], before[slots < 0]):
        raise SelfTestError(f"self-test of the adapter operations: {name} changes rows without an adapter")
    worst = (found.double() - wanted).abs().max().item()
    if not worst <= TOLERANCE[found.dtype] * max(1.0, wanted.abs().max().item()):
        raise SelfTestError(f"self-test of the adapter operations: {name} is off by {worst:.3g}")


def reference_add(
    y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor:
    """What the operations must give, one row at a time in double precision: y + x A^T B^T of the row's slot.

    `a` is [slots, 1, rank, input], `b` [slots, 1, width, rank], `slots` one slot or -1 per row.
    """
    result = y.double().clone()
    for row, slot in enumerate(slots.tolist()):
        if slot >= 0:
            result[row] += b[slot, 0].double() @ (a[slot, 0].double() @ x[row].double())
    return result
