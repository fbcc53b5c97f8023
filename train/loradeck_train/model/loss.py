"""A causal model's loss that computes the head only where a label is, and a chunk of positions at a time."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from loradeck_train.data.batches import IGNORED
from loradeck_train.model.chunked_loss import chunk_of, chunked_cross_entropy
from loradeck_train.model.token_rows import head_parts

_CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def install_completion_loss(model: nn.Module) -> bool:
    """Make a causal model's `forward` compute, when labels are given, the head only where a label is.

    Without loss on the prompt most of the head's work (and with a vocabulary of 152k most of the memory) falls away;
    what is left goes chunk by chunk. The loss is the same: mean cross-entropy over labels, or their sum over
    `num_items_in_batch`. Returns False, and leaves the model as it is, where the architecture changes its logits after
    the head.
    """
    config: Any = model.config
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    if any(getattr(text_config, name, None) not in (None, 1, 1.0) for name in _CHANGED_LOGITS):
        return False
    plain_forward = model.forward

    def forward(
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        from transformers.modeling_outputs import CausalLMOutput

        if labels is None:
            return plain_forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        decoder: Any = model.base_model
        head: Any = model.get_output_embeddings()
        kwargs.pop("logits_to_keep", None)
        hidden = decoder(
            input_ids=input_ids, attention_mask=attention_mask, **(kwargs | {"use_cache": False, "return_dict": True})
        ).last_hidden_state
        targets = labels[:, 1:]
        chosen = targets != IGNORED
        total = head_loss(head, hidden[:, :-1][chosen], targets[chosen])
        return CausalLMOutput(loss=total / (chosen.sum() if num_items_in_batch is None else num_items_in_batch))

    model.forward = forward
    return True


def head_loss(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Sum of cross-entropies; a head that is no plain matrix is computed again in the backward pass, chunk by chunk."""
    parts = head_parts(head)
    if parts is not None:
        weight, bias, rows, ids = parts
        return chunked_cross_entropy(hidden, weight, targets, bias=bias, rows=rows, ids=ids)
    total = hidden.new_zeros((), dtype=torch.float32)
    size = chunk_of(int(head.weight.shape[0] if hasattr(head, "weight") else head.out_features))
    for part, goal in zip(hidden.split(size), targets.split(size), strict=True):
        total = total + checkpoint(_cross_entropy, head, part, goal, use_reentrant=False)
    return total


def _cross_entropy(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(head(hidden).float(), targets, reduction="sum")


def remove_completion_loss(model: nn.Module) -> None:
    """Undo `install_completion_loss`, and any wrapping of `forward` that a trainer put around it."""
    model.__dict__.pop("forward", None)


def logprobs_at_end(model: nn.Module, prompts: list[list[int]], allowed: Tensor) -> list[Tensor]:
    """Natural-log probabilities of the next token after each prompt, over the ids `allowed`: float32 [allowed]."""
    device = next(model.parameters()).device
    found = []
    with torch.inference_mode():
        for prompt in prompts:
            ids = torch.tensor([prompt], device=device)
            logits = model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[0, -1].float()
            found.append(torch.log_softmax(logits[allowed.to(device)], dim=-1).cpu())
    return found
