"""Completion-only loss that never builds the logits of positions without a label."""

from typing import Any

import torch
from torch import Tensor, nn

from loradeck_train.data.batches import IGNORED

_CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def install_completion_loss(model: nn.Module) -> bool:
    """Make a causal model's `forward` compute, when labels are given, the head only where a label is.

    The prompt has no labels, so most of the head's work (and with a vocabulary of 152k most of the memory) falls away;
    the loss is the same: mean cross-entropy over labels, or their sum over `num_items_in_batch`. Returns False, and
    leaves the model as it is, where the architecture changes its logits after the head.
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
        logits = head(hidden[:, :-1][chosen]).float()
        total = nn.functional.cross_entropy(logits, targets[chosen], reduction="sum")
        return CausalLMOutput(loss=total / (chosen.sum() if num_items_in_batch is None else num_items_in_batch))

    model.forward = forward
    return True


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
