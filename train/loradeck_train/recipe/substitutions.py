"""What a recipe asks for and the device cannot do: replaced by the nearest that it can, and said."""

from loradeck_train.recipe.settings import Recipe

_CUDA_OPTIMIZERS = {"paged_adamw_8bit", "adamw_8bit", "paged_adamw_32bit"}


def substituted(recipe: Recipe, cuda: bool) -> tuple[Recipe, list[str]]:
    """The recipe as it will run with or without a CUDA device, and a sentence for every change."""
    changed: list[str] = []
    optimisation = recipe.optimisation
    if not cuda and optimisation.optimizer in _CUDA_OPTIMIZERS:
        changed.append(f"optimizer {optimisation.optimizer}: adamw, because it needs CUDA")
        recipe = recipe.model_copy(update={"optimisation": optimisation.model_copy(update={"optimizer": "adamw"})})
    if not cuda and recipe.precision == "fp16":
        changed.append("precision fp16: bf16, because the CPU has no scaled float16 training")
        recipe = recipe.model_copy(update={"precision": "bf16"})
    if not cuda and recipe.liger:
        changed.append("liger: torch's own kernels, because Liger's need CUDA")
        recipe = recipe.model_copy(update={"liger": False})
    return recipe, changed
