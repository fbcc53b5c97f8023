"""Embedding and head of a causal model, through whatever wrappers an adapter put around them."""

from typing import Any

from torch import Tensor, nn


def matrices(causal: Any) -> tuple[Tensor, Tensor]:
    """Weights of embedding and head, [rows, hidden] each; the same tensor where they are tied."""
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    return plain(embedding).weight, plain(head).weight


def is_tied(causal: Any) -> bool:
    """Whether embedding and head are one matrix."""
    embedding, head = matrices(causal)
    return embedding is head or (not embedding.is_meta and embedding.data_ptr() == head.data_ptr())


def plain(module: Any) -> Any:
    """The plain module inside PEFT's wrappers."""
    while not isinstance(module, nn.Linear | nn.Embedding):
        module = module.get_base_layer() if hasattr(module, "get_base_layer") else module.original_module
    return module


def name_of(causal: nn.Module, module: nn.Module) -> str:
    """Full name of a module inside a model."""
    name: str = next(name for name, found in causal.named_modules() if found is module)
    return name
