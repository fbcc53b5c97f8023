"""Compilation beside adapters: what depends on the batch is opaque to the compiler.

On a CPU vLLM gives compilation up as soon as adapters are on, because its adapter code there does not go through the
compiler. Here the compiler sees operations that change a tensor in place, and never what is behind them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LAYER = "loradeck_layer"
"""Attribute of a LoRA layer: its number among `_layers`."""

_layers: list[Any] = []
"""Of a linear layer its wrapper's operation, its stacks (vLLM fills them in place) and its slices, which saves looking
them up in every step; of an embedding the layer itself."""

_state: Any = None
_library: Any = None


@contextmanager
def compilation_kept() -> Iterator[None]:
    """Have vLLM's CPU platform set its configuration up as if there were no adapters; for the front end."""
    from vllm.platforms import current_platform

    platform = type(current_platform)
    original = platform.__dict__["check_and_update_config"]

    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        adapters, vllm_config.lora_config = vllm_config.lora_config, None
        try:
            original.__func__(cls, vllm_config)
        finally:
            vllm_config.lora_config = adapters

    platform.check_and_update_config = classmethod(check_and_update_config)
    try:
        yield
    finally:
        platform.check_and_update_config = original


def add_lora(y: Tensor, x: Tensor, layer: int) -> None:
    """Add the adapters' part of a LoRA layer, by its number, to `y` in place."""
    add, a, b, slices = _layers[layer]
    add(y, x, a, b, 1.0, slices)


def add_lora_embedding(y: Tensor, ids: Tensor, layer: int) -> None:
    """Add the adapters' part of an embedding, a LoRA layer by its number, to the looked up rows `y` in place."""
    module = _layers[layer]
    wrapper = module.punica_wrapper
    if not wrapper.no_lora:
        looked_up = torch.nn.functional.embedding(
            ids + wrapper._embeddings_indices[: len(ids)], module.lora_a_stacked_2d
        )
        wrapper.add_lora_embedding(y, looked_up, module.lora_b_stacked)


def embed_rows(embedded: Tensor, ids: Tensor) -> None:
    """Put the rows of added tokens into `embedded` in place."""
    _state.tables.embed(embedded, ids.long(), _state.wrapper._token_lora_indices[: len(ids)])


def _nothing(*_: Any) -> None:
    """What the compiler runs in their place while it traces: they have no result."""


def define_operations(dispatch_key: str) -> None:
    """Register them as opaque operations, for the worker."""
    global _library
    _library = torch.library.Library("loradeck", "DEF")
    _library.define("add_lora(Tensor(a!) y, Tensor x, int layer) -> ()")
    _library.define("add_lora_embedding(Tensor(a!) y, Tensor ids, int layer) -> ()")
    _library.define("embed_rows(Tensor(a!) embedded, Tensor ids) -> ()")
    for name, function in (
        ("add_lora", add_lora),
        ("add_lora_embedding", add_lora_embedding),
        ("embed_rows", embed_rows),
    ):
        _library.impl(name, function, dispatch_key=dispatch_key)
        _library._register_fake(name, _nothing)


def hide_layers() -> None:
    """Have LoRA layers call the opaque operations. vLLM's own adapter kernels for GPUs need no hiding."""
    from vllm.lora.layers import VocabParallelEmbeddingWithLoRA
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA

    def apply_lora_to_output(self: Any, x: Tensor, output: Tensor) -> Tensor:
        torch.ops.loradeck.add_lora(output, x, self.loradeck_layer)
        return output

    def forward(self: Any, ids: Tensor) -> Tensor:
        output: Tensor = self.base_layer.forward(ids)
        torch.ops.loradeck.add_lora_embedding(output, ids, self.loradeck_layer)
        return output

    BaseLinearLayerWithLoRA._apply_lora_to_output = apply_lora_to_output
    VocabParallelEmbeddingWithLoRA.forward = forward


def is_defined() -> bool:
    """Whether this process has the opaque operations."""
    return _library is not None


def attach(manager: Any, state: Any) -> None:
    """Take over the state of the model, and give its LoRA layers their numbers, before anything is compiled."""
    global _state
    from vllm.lora.layers import VocabParallelEmbeddingWithLoRA
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA

    _state = state
    for module in manager.modules.values():
        if isinstance(module, BaseLinearLayerWithLoRA):
            operation = module.punica_wrapper.add_lora_linear
            setattr(module, LAYER, len(_layers))
            _layers.append((operation, module.lora_a_stacked, module.lora_b_stacked, module.output_slices))
        elif isinstance(module, VocabParallelEmbeddingWithLoRA):
            setattr(module, LAYER, len(_layers))
            _layers.append(module)
