"""An adapter inside the worker: read and checked, its rows kept beside its matrices, put into a slot."""

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import DEFAULT_LANGUAGE_WRAPPER_KEY

from loradeck_serve.engine.plugin import compiled
from loradeck_serve.engine.plugin.new_tokens import NewRows, read_rows
from loradeck_serve.engine.plugin.punica import GroupedPunicaWrapper
from loradeck_serve.engine.plugin.self_test import self_test

ROWS = "loradeck_rows"
"""Attribute of vLLM's adapter object that holds the adapter's new rows."""


def attach(worker_manager: Any, model: Any, state: Any) -> None:
    """Connect the shared state with the model whose LoRA layers were just made."""
    manager = worker_manager._adapter_manager
    state.wrapper = manager.punica_wrapper_mapping[DEFAULT_LANGUAGE_WRAPPER_KEY]
    if isinstance(state.wrapper, GroupedPunicaWrapper):
        self_test(worker_manager.lora_config, worker_manager.lora_config.lora_dtype)
    compiled.attach(manager, state)
    # vLLM compares it with the rows that an adapter's LoRA on the embedding covers. Those of a base without reserved
    # rows are fewer than a reserved copy has, and fit: what they do not cover is zero. `_check` looks at the rest.
    worker_manager.vocab_size = None
    if not state.reserved:
        return
    embedding = _embedding(model)
    state.tables.allocate(embedding.embedding_dim, embedding.weight.dtype, embedding.weight.device)
    original = embedding.forward
    # Where the model is compiled or recorded as a graph, the tables are looked at when it runs and not before.
    opaque = compiled.is_defined()

    def forward(self: Any, ids: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = original(ids)
        if opaque:
            torch.ops.loradeck.embed_rows(embedded, ids)
        else:
            compiled.embed_rows(embedded, ids)
        return embedded

    embedding.forward = types.MethodType(forward, embedding)


def _embedding(model: Any) -> Any:
    """The module that looks rows up, without LoRA's wrapper around it."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    found = [
        module
        for module in model.modules()
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
    ]
    if len(found) != 1:
        raise RuntimeError(
            f"a base with reserved rows must have one embedding, {type(model).__name__} has {len(found)}"
        )
    return found[0]


def add(worker_manager: Any, request: Any, add_any: Callable[[Any, Any], Any]) -> Any:
    """vLLM's `add_adapter` (`add_any`), with a shorter way for an adapter that is in its slot already.

    It runs for every adapter of every batch, and vLLM's own way lists all that are loaded each time. Where it raises,
    nothing is left of an adapter that was not known before.
    """
    manager, number = worker_manager._adapter_manager, request.lora_int_id
    known = number in manager._registered_adapters
    if known and number in manager._active_adapters and not request.load_inplace:
        manager.get_adapter(number)
        manager.activate_adapter(number)
        return True
    try:
        return add_any(worker_manager, request)
    except Exception:
        if not known:
            # A failure in the middle must not leave half an adapter behind under a valid number.
            worker_manager.remove_adapter(number)
        raise


def load(worker_manager: Any, request: Any, load_matrices: Callable[[Any, Any], Any], state: Any) -> Any:
    """vLLM's adapter object for `request`, checked against the model. Raises ValueError, and leaves nothing behind."""
    folder = Path(request.lora_path)
    manager = worker_manager._adapter_manager
    config = json.loads((folder / "adapter_config.json").read_text())
    if config["r"] == 0:
        lora = LoRAModel(request.lora_int_id, 0, {})
    else:
        lora = load_matrices(worker_manager, request)
        _check(lora, manager)
    rows: NewRows | None = None
    if state.reserved:
        options, table = state.options, state.tables._input
        rows = read_rows(folder, options.vocabulary, options.table_rows, table.shape[-1], table.dtype)
    setattr(lora, ROWS, rows)
    return lora


def _check(lora: Any, manager: Any) -> None:
    """Every matrix must fit one layer of the model, and be finite in the precision it is served in."""
    places: dict[str, tuple[Any, int]] = {}
    for name, layer in manager.modules.items():
        parent, _, leaf = name.rpartition(".")
        for position, child in enumerate(manager.packed_modules_mapping.get(leaf, [leaf])):
            places[f"{parent}.{child}" if parent else child] = (layer, position)
    if not lora.loras:
        raise ValueError("the adapter has no matrices")
    for name, weights in lora.loras.items():
        if name not in places:
            raise ValueError(f"no layer of the model is called {name}")
        layer, position = places[name]
        a, b = weights.lora_a, weights.lora_b
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise ValueError(f"{name} does not have two matrices of one rank")
        if not (a.isfinite().all() and b.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite in {a.dtype}")
        wanted = _shape(layer, position)
        if wanted is not None and not _fits((a.shape[1], b.shape[0]), wanted):
            raise ValueError(f"{name} is {a.shape[1]} to {b.shape[0]}, the model's layer {wanted[0]} to {wanted[1]}")


def _shape(layer: Any, position: int) -> tuple[int | range, int | range] | None:
    """Input and output width of a layer's slice, where the layer is not split over devices: of the embedding's inputs
    and the head's outputs, which are rows of tokens, the numbers that fit."""
    if getattr(layer, "tp_size", 1) != 1:
        return None
    a, b = layer.lora_a_stacked, layer.lora_b_stacked
    if isinstance(a, tuple):
        return int(a[position].shape[-1]), int(b[position].shape[-2])
    if not isinstance(a, torch.Tensor):
        return None
    if a.ndim == 3:
        return range(a.shape[1] + 1), int(b.shape[-2])
    return int(a.shape[-1]), range(b.shape[-2] + 1)


def _fits(found: tuple[int, int], wanted: tuple[int | range, int | range]) -> bool:
    return all(f in w if isinstance(w, range) else f == w for f, w in zip(found, wanted, strict=True))


def activated(manager: Any, number: int, state: Any) -> None:
    """An adapter has got a slot: put its rows there and say its rank."""
    slot = manager.lora_index_to_id.index(number)
    lora = manager._registered_adapters[number]
    if isinstance(state.wrapper, GroupedPunicaWrapper):
        # Adapters of vLLM's own warm-up have matrices up to the rank that they were made with.
        on_head = any(name.rpartition(".")[2] == "lm_head" for name in lora.loras)
        state.wrapper.fill_slot(slot, int(lora.rank), int(lora.rank) if on_head else 0)
    if state.reserved and state.wrapper is not None:
        state.tables.set_slot(slot, getattr(lora, ROWS, None))
