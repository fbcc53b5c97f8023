"""Servability before a step is taken: what the result will need of a server, and what it could never be served with."""

from loradeck_registry.bases.shapes import BaseShapes, read_shapes
from loradeck_registry.errors import PreconditionError
from loradeck_train.prepare import Prepared
from loradeck_train.recipe.settings import Recipe

_ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for max_lora_rank."""


def needs_of(recipe: Recipe, shapes: BaseShapes, added: int) -> tuple[str, ...]:
    """What serving the revision will take, in words."""
    if recipe.publishes == "full":
        return ("an engine of its own: loradeck serve --base NAME",)
    rank = recipe.adapter.published_rank
    bound = next((allowed for allowed in _ENGINE_RANKS if allowed >= rank), rank)
    needs = [f"max_lora_rank of at least {bound}"]
    if recipe.adapter.embeddings != "rows":
        needs.append("a server with engine.embedding_lora: true")
    if added:
        needs.append(f"{added} new rows on reserved rows {shapes.vocabulary} and up")
    return tuple(needs)


def problems_of(recipe: Recipe, shapes: BaseShapes, base_rows: int, added: int) -> tuple[str, ...]:
    """What would keep the revision from being served, with what to do about it. `base_rows` are those of the base's
    embedding, before any are added for it."""
    found = []
    if added > base_rows - shapes.vocabulary:
        found.append(
            f"{added} new tokens, and the base has {base_rows - shapes.vocabulary} reserved rows: store a copy with "
            "room by `loradeck registry add-base --reserve-tokens 64` and train on that"
        )
    if recipe.publishes == "adapter" and recipe.adapter.published_rank > _ENGINE_RANKS[-1]:
        found.append(
            f"published rank {recipe.adapter.published_rank}, and engines take {_ENGINE_RANKS[-1]} at most: "
            "lower lora.rank or lora.dora_rank, or set publish.merged"
        )
    return tuple(found)


def refuse_unservable(prepared: Prepared) -> None:
    """Raise PreconditionError (NOT_SERVABLE) before training what could not be served afterwards."""
    shapes = read_shapes(prepared.base.folder)
    problems = problems_of(prepared.recipe, shapes, shapes.rows, len(prepared.task.added_tokens))
    if problems:
        raise PreconditionError(f"the result could not be served: {problems[0]}", reason="NOT_SERVABLE")
