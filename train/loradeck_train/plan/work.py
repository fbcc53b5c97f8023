"""Floating-point operations of a run, and from them its time."""

from loradeck_train.plan.setting import Setting
from loradeck_train.recipe.settings import Recipe


def flops_per_step(
    setting: Setting, recipe: Recipe, trained: int, tokens: float, learned: float, length: float
) -> float:
    """Operations of one optimizer step over `tokens` tokens, `learned` of them through the head, in sequences of
    `length`: two per weight and token forward, two backward for the activations, two for the gradient of every trained
    weight, and one more forward pass with gradient checkpointing (Kaplan et al. 2020, appendix)."""
    shapes = setting.shapes
    linear = sum(outputs * inputs for outputs, inputs in shapes.modules.values())
    head = shapes.rows * shapes.hidden
    passes = 3 if recipe.gradient_checkpointing else 2
    full = recipe.method == "full"
    own = linear if full else trained
    layers = int(setting.config["num_hidden_layers"])
    attention = passes * 2 * 2 * layers * shapes.hidden * length * tokens
    # An adapter runs its own products in both directions too.
    products = passes * 2 * linear * tokens + 2 * own * tokens + (0 if full else passes * 2 * trained * tokens)
    return products + attention + (3 if full else 2) * 2 * head * learned
