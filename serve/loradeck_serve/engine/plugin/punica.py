"""The adapter operations behind the interface that vLLM's LoRA layers call (its "punica wrapper")."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from loradeck_serve.engine.plugin import operations
from loradeck_serve.engine.plugin.kernel import load_kernel
from loradeck_serve.engine.plugin.plan import Plan, plan_batch
from loradeck_serve.engine.plugin.tiles import TiledLayer

SMALL_COLUMNS = 8192
"""Layers of so many columns of input and output together are computed by the kernel if there is one, also where it
cannot use the matrix unit: their products cost mostly their start. Their matrices are kept in float32."""

SMALL_ROWS = 256
"""Without the kernel, batches of so many rows are computed in float32 too."""


class GroupedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's wrapper for the CPU with its operations replaced: linear, embedding and logits.

    Once per batch it plans which tokens, and which of the rows whose logits are wanted, belong to which slot.
    """

    def __init__(self, max_num_batched_tokens: int, max_batches: int, device: Any, **kwargs: Any) -> None:
        super().__init__(max_num_batched_tokens, max_batches, device, **kwargs)
        config = kwargs["lora_config"]
        self._ranks = [int(config.max_lora_rank)] * int(config.max_loras)
        self._head_ranks = list(self._ranks)
        self._versions = [0] * int(config.max_loras)
        self._layers: dict[tuple[int, str], operations.PackedLayer | TiledLayer] = {}
        self._current: set[int] = set()
        """Slots that all layers have as they are."""
        self._addresses: dict[int, int] = {}
        """Layers that run on the matrix unit, by what identifies them: nothing about their tensors changes from batch
        to batch, so that a call need not look at them again."""
        self._batch = 0
        self._kernel = load_kernel()
        self._tiles = self._kernel is not None and self._kernel.has_tiles()
        self._tokens: Plan | None = None
        self._sampled: Plan | None = None

    def fill_slot(self, slot: int, rank: int, head_rank: int | None = None) -> None:
        """Say that `slot` now holds an adapter of `rank`; batches planned before are void.

        `head_rank` is 0 for one without LoRA on the head, which then costs nothing there.
        """
        self._ranks[slot] = rank
        self._head_ranks[slot] = rank if head_rank is None else head_rank
        self._versions[slot] += 1
        self._current.discard(slot)

    def update_metadata(
        self, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        """Take over which adapter each token, and each row of logits, of the next batch belongs to."""
        slot_of = {number: slot for slot, number in enumerate(lora_index_to_id) if number is not None} | {0: -1}
        tokens = _slots(mapping.index_mapping, slot_of)
        sampled = _slots(mapping.prompt_mapping, slot_of)
        self._token_lora_indices[: len(tokens)] = torch.from_numpy(tokens)
        self._sampler_indices[: len(sampled)] = torch.from_numpy(sampled)
        self._embeddings_indices[: len(tokens)] = torch.from_numpy(np.maximum(tokens, 0) * vocab_size)
        self.indices_len[:] = [len(tokens), len(sampled), 0, len(tokens)]
        self.is_prefill = bool(mapping.is_prefill)
        self._tokens = plan_batch(tokens, self._ranks)
        self._sampled = plan_batch(sampled, self._head_ranks)
        self.no_lora = self._tokens is None
        if self._tokens is not None:
            self._batch = self._tokens.address
            used = {group.slot for group in self._tokens.groups}
            if not used <= self._current:
                self._current |= used
                for layer in self._layers.values():
                    layer.update(sorted(self._current), self._ranks, self._versions)

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
        """Add the adapters' part of a linear layer to `y` in place; `scale` is 1 for every adapter."""
        plan = self._tokens
        if plan is None:
            return
        (y_row, y_step), (x_row, x_step) = y.stride(), x.stride()
        address = self._addresses.get(id(lora_a_stacked[0]))
        if address is not None and x_step == y_step == 1:
            assert self._kernel is not None
            self._kernel.tiles(y.data_ptr(), y_row, x.data_ptr(), x_row, self._batch, address)
            return
        kernel = self._kernel if operations.fits(y, x) else None
        if kernel is not None and self._tiles and x.dtype == torch.bfloat16:
            layer = TiledLayer(lora_a_stacked, lora_b_stacked, output_slices)
            self._addresses[id(lora_a_stacked[0])] = layer.address
            self._take(layer, id(lora_a_stacked[0]), "tiles")
            layer.add(kernel, y, x, plan)
            return
        small = x.shape[1] + y.shape[1] <= SMALL_COLUMNS and (kernel is not None or len(x) <= SMALL_ROWS)
        key = id(lora_a_stacked[0]), "float32" if small else "as stacked"
        found = self._layers.get(key)
        if found is None:
            dtype = torch.float32 if small else None
            found = operations.PackedLayer(lora_a_stacked, lora_b_stacked, output_slices, dtype)
            self._take(found, *key)
        assert isinstance(found, operations.PackedLayer)
        if kernel is not None and small:
            found.add_by_kernel(kernel, y, x, plan)
        else:
            found.add(y, x, plan)

    def _take(self, layer: operations.PackedLayer | TiledLayer, number: int, form: str) -> None:
        """Keep a layer in one form, up to date from now on."""
        layer.update(sorted(self._current), self._ranks, self._versions)
        self._layers[number, form] = layer

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """Add the adapters' part of the embedding to `y` in place."""
        if self._tokens is not None:
            operations.add_lora_embedding(y, x, lora_b_stacked, self._tokens)

    def add_lora_logits(
        self, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **kwargs: Any
    ) -> None:
        """Add the adapters' part of the head to the logits `y` in place; `scale` is 1 for every adapter."""
        if self._sampled is not None:
            width = min(y.shape[-1], lora_b_stacked.shape[-2])
            operations.add_lora(y, x, (lora_a_stacked,), (lora_b_stacked,), (width,), self._sampled)

    def add_shrink(self, *args: Any, **kwargs: Any) -> None:
        """Only fully sharded layers call this, and a CPU has none."""
        raise NotImplementedError("fully sharded adapters are not supported on a CPU")

    def add_expand(self, *args: Any, **kwargs: Any) -> None:
        """Only fully sharded layers call this, and a CPU has none."""
        raise NotImplementedError("fully sharded adapters are not supported on a CPU")


def _slots(numbers: Any, slot_of: dict[int, int]) -> Any:
    """Slot or -1 (int64) of each adapter number, 0 standing for none."""
    array = np.asarray(numbers, dtype=np.int64)
    known = np.unique(array)
    return np.asarray([slot_of[int(number)] for number in known], dtype=np.int64)[np.searchsorted(known, array)]
