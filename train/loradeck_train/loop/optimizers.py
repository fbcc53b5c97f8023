"""Optimizers by their recipe names, and LoRA+'s two learning rates."""

from typing import Any

import torch

from loradeck_train.recipe.settings import Recipe

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
"""The trainer's names."""


def plain_optimizer(parameters: list[Any], recipe: Recipe) -> torch.optim.Optimizer:
    """What costs a step as much as the recipe's optimizer does: SGD for itself, AdamW for all that keep moments."""
    settings = recipe.optimisation
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate)
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def lora_plus(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with B's learning rate `loraplus_ratio` times A's; the recipe's rate is A's."""
    from peft.optimizers import create_loraplus_optimizer

    settings = recipe.optimisation
    found: torch.optim.Optimizer = create_loraplus_optimizer(
        model=model,
        optimizer_cls=torch.optim.AdamW,
        lr=settings.learning_rate,
        loraplus_lr_ratio=recipe.adapter.loraplus_ratio,
        loraplus_lr_embedding=settings.learning_rate,
        loraplus_weight_decay=settings.weight_decay,
        betas=(settings.beta1, settings.beta2),
        eps=1e-8,
        fused=True,
    )
    return found
