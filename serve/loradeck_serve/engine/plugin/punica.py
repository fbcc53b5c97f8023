"""The adapter operations of `operations` behind the interface that vLLM's LoRA layers call (its "punica wrapper")."""

from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from loradeck_serve.engine.plugin import operations


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's wrapper for the CPU with its operations replaced, linear, embedding and logits.

    Once per batch it groups the tokens, and the rows whose logits are wanted, by slot.
    """

    def __init__(self, max_num_batched_tokens: int, max_batches: int, device: Any, **kwargs: Any) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device, **kwargs)
        config = kwargs["lora_config"]
        self._ranks = [int(config.max_lora_rank)] * int(config.max_loras)
        self._token_groups: tuple[operations.Group, ...] = ()
        self._sampler_groups: tuple[operations.Group, ...] = ()

    def set_rank(self, slot: int, rank: int) -> None:
        """Say which rank the adapter in `slot` has, from the next batch on."""
        self._ranks[slot] = rank

    def update_metadata(
        self, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        """Take over which adapter each token of the next batch belongs to."""
        self._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
        self.is_prefill = bool(mapping.is_prefill)
        self._token_groups = operations.group_rows(self.token_lora_indices.tolist(), self._ranks)
        self._sampler_groups = operations.group_rows(self.sampler_indices.tolist(), self._ranks)
        self.no_lora = not self._token_groups

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """Add the adapters' part of a linear layer to `y` in place."""
        if self._token_groups:
            operations.add_lora(y, x, lora_a_stacked, lora_b_stacked, output_slices, self._token_groups, scale)

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """Add the adapters' part of the embedding to `y` in place."""
        if self._token_groups:
            operations.add_lora_embedding(y, x, lora_b_stacked, self._token_groups)

    def add_lora_logits(
        self, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **kwargs: Any
    ) -> None:
        """Add the adapters' part of the head to the logits `y` in place."""
        if self._sampler_groups:
            y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
            width = min(y.shape[-1], lora_b_stacked.shape[-2])
            operations.add_lora(y, x, (lora_a_stacked,), (lora_b_stacked,), (width,), self._sampler_groups, scale)

    def add_shrink(self, *args: Any, **kwargs: Any) -> None:
        """Not part of any path that this wrapper serves."""
        raise NotImplementedError("fully sharded adapters are not supported on a CPU")

    def add_expand(self, *args: Any, **kwargs: Any) -> None:
        """Not part of any path that this wrapper serves."""
        raise NotImplementedError("fully sharded adapters are not supported on a CPU")


def reference_add(y: Tensor, x: Tensor, a: Tensor, b: Tensor, slots: Tensor) -> Tensor:
    """What `add_lora` must give, one row at a time in double precision: y + x A^T B^T of the row's slot.

    `a` is [slots, 1, rank, input], `b` [slots, 1, width, rank], `slots` one slot or -1 per row.
    """
    result = y.double().clone()
    for row, slot in enumerate(slots.tolist()):
        if slot >= 0:
            result[row] += b[slot, 0].double() @ (a[slot, 0].double() @ x[row].double())
    return result.to(torch.float64)
