"""How many parameters a recipe trains and how many it stores, from the shapes of the base alone."""

from dataclasses import dataclass

from loradeck_registry.bases.shapes import BaseShapes
from loradeck_registry.errors import InvalidError
from loradeck_train.recipe.settings import Recipe


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters trained, and stored in the published revision. Tied rows are trained once, stored for both sides."""

    trained: int
    stored: int


def count_parameters(recipe: Recipe, shapes: BaseShapes, base_parameters: int, added: int) -> ParameterCounts:
    """The counts of `recipe` on a base of these shapes with `added` new tokens.

    Raises InvalidError (BAD_RECIPE) for a target module that the base does not have.
    """
    if recipe.method == "full":
        return ParameterCounts(base_parameters, base_parameters)
    settings = recipe.adapter
    leaves = target_leaves(recipe, shapes)
    chosen = {name: shape for name, shape in shapes.modules.items() if name.rpartition(".")[2] in leaves}
    trained = sum(settings.rank_of(name) * sum(shape) for name, shape in chosen.items())
    if settings.dora:
        trained += sum(outputs for outputs, _ in chosen.values())
    stored = sum(settings.published_rank * sum(shape) for shape in chosen.values())
    if settings.embeddings != "rows":
        names = whole_modules(recipe, shapes)
        of_one_rank = shapes.rows + shapes.hidden
        trained += sum(settings.rank_of(name) for name in names) * of_one_rank
        # A tied pair is written for both sides.
        stored += (2 if shapes.tied else len(names)) * settings.published_rank * of_one_rank
    if settings.embeddings != "lora":
        trained += added * shapes.hidden * (1 if shapes.tied else 2)
    stored += 2 * added * shapes.hidden
    return ParameterCounts(trained, base_parameters if recipe.publish.merged else stored)


def whole_modules(recipe: Recipe, shapes: BaseShapes) -> tuple[str, ...]:
    """Which of embedding and head carry LoRA while they are trained; tied ones are one matrix and share one pair."""
    if shapes.tied:
        return (shapes.embedding,)
    return {"both": shapes.whole, "input": (shapes.embedding,), "output": (shapes.head,)}[
        recipe.adapter.embedding_sides
    ]


def target_leaves(recipe: Recipe, shapes: BaseShapes) -> set[str]:
    """Leaf names of the modules that get LoRA. Raises InvalidError (BAD_RECIPE) for one that the base lacks."""
    chosen = recipe.adapter.target_modules
    leaves = shapes.leaves if chosen == "all-linear" else set(chosen)
    if unknown := sorted(leaves - shapes.leaves):
        raise InvalidError(
            f"lora.target_modules: the base has no linear module `{unknown[0]}`; it has "
            f"{', '.join(sorted(shapes.leaves))}",
            reason="BAD_RECIPE",
            field="lora.target_modules",
        )
    return leaves
