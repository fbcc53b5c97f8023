"""The plan of a run: what would be trained on what, and for how many steps. Reads headers and data, loads no model."""

from dataclasses import dataclass
from typing import Any

from loradeck_registry.errors import InvalidError
from loradeck_registry.registry import Registry
from loradeck_registry.shapes import BaseShapes, read_shapes
from loradeck_registry.weights import open_all
from loradeck_train.loop.schedule import schedule_of
from loradeck_train.prepare import Prepared, prepare
from loradeck_train.recipe.settings import Recipe

NOT_ESTIMATED = ("memory", "time")
"""What a plan does not say yet."""
_BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Plan:
    """Figures of a run before it starts. `published_bytes` counts tensors only; `servable` says what the published
    revision would need of a server."""

    prepared: Prepared
    parameters: int
    trainable_parameters: int
    published_bytes: int
    steps: int
    steps_per_epoch: int
    tokens: int
    servable: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Figures for programs."""
        prepared = self.prepared
        return {
            "base": prepared.base.reference,
            "method": prepared.recipe.method,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "trainable_share": round(self.trainable_parameters / self.parameters, 6),
            "published_bytes": self.published_bytes,
            "rows": len(prepared.training),
            "validation_rows": len(prepared.validation),
            "data_digest": prepared.data.digest,
            "labels": list(prepared.data.labels),
            "added_tokens": len(prepared.task.added_tokens),
            "max_length": prepared.max_length,
            "longest": prepared.counts.longest,
            "truncated": prepared.counts.truncated,
            "prompt_tokens": prepared.counts.prompt,
            "answer_tokens": prepared.counts.answer,
            "steps": self.steps,
            "steps_per_epoch": self.steps_per_epoch,
            "tokens": self.tokens,
            "substitutions": list(prepared.substitutions),
            "servable": list(self.servable),
            "not_estimated": list(NOT_ESTIMATED),
        }


def plan(recipe: Recipe, registry: Registry | None) -> Plan:
    """The plan of `recipe`. Raises what preparing the run would raise, and InvalidError for unknown target modules."""
    prepared = prepare(recipe, registry)
    shapes = read_shapes(prepared.base.folder, prepared.base.identity)
    parameters = _parameters(prepared)
    schedule = schedule_of(recipe.optimisation, len(prepared.training))
    epochs = schedule.steps / schedule.steps_per_epoch
    if recipe.method == "lora":
        trainable, stored = _adapter_parameters(prepared, shapes)
    else:
        trainable = stored = parameters
    return Plan(
        prepared=prepared,
        parameters=parameters,
        trainable_parameters=trainable,
        published_bytes=stored * _BYTES[recipe.publish.dtype],
        steps=schedule.steps,
        steps_per_epoch=schedule.steps_per_epoch,
        tokens=round(prepared.counts.total * epochs),
        servable=_servable(prepared),
    )


def _parameters(prepared: Prepared) -> int:
    return sum(weights.tensors[name].size for name, weights in open_all(prepared.base.folder).items())


def _adapter_parameters(prepared: Prepared, shapes: BaseShapes) -> tuple[int, int]:
    """Parameters trained, and stored: tied rows are trained once and stored for both sides."""
    settings = prepared.recipe.adapter
    leaves = shapes.leaves if settings.target_modules == "all-linear" else set(settings.target_modules)
    if unknown := sorted(leaves - shapes.leaves):
        raise InvalidError(
            f"lora.target_modules: the base has no linear module `{unknown[0]}`; it has "
            f"{', '.join(sorted(shapes.leaves))}",
            reason="BAD_RECIPE",
            field="lora.target_modules",
        )
    low_rank = sum(
        settings.rank * sum(shape) for name, shape in shapes.modules.items() if name.rpartition(".")[2] in leaves
    )
    rows = len(prepared.task.added_tokens) * shapes.hidden
    return low_rank + rows * (1 if shapes.tied else 2), low_rank + 2 * rows


def _servable(prepared: Prepared) -> tuple[str, ...]:
    recipe, added = prepared.recipe, len(prepared.task.added_tokens)
    if recipe.method == "full":
        return ("as a base of its own: loradeck serve --base NAME",)
    needs = [f"max_lora_rank of at least {recipe.adapter.rank}"]
    if added:
        needs.append(f"{added} new rows on reserved rows {prepared.base.identity.vocabulary} and up")
    return tuple(needs)
