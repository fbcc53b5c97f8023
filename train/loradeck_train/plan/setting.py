"""What is planned on: base and data as they are, or, while they are not there, as records and the recipe state them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_registry.bases.identity import read_config
from loradeck_registry.bases.known import KnownBase, known_base
from loradeck_registry.bases.shapes import BaseShapes, read_shapes
from loradeck_registry.errors import InvalidError
from loradeck_registry.registry import Registry
from loradeck_registry.weights import open_all, weight_files
from loradeck_tasks.defaults import default_task
from loradeck_tasks.task import AddedToken, Task
from loradeck_train.loop.schedule import Schedule, plan_schedule, schedule_of
from loradeck_train.plan.simulation import Batch
from loradeck_train.prepare import Prepared, prepare
from loradeck_train.recipe.settings import Recipe
from loradeck_train.recipe.substitutions import substituted

_BLIND_TOKENS = 4


@dataclass(frozen=True)
class Setting:
    """A recipe with what it trains on. `lengths` holds tokens and learned tokens of every example."""

    recipe: Recipe
    reference: str
    config: Mapping[str, Any]
    shapes: BaseShapes
    parameters: int
    file_bytes: int
    task: Task
    lengths: Sequence[tuple[int, int]]
    max_length: int
    substitutions: tuple[str, ...]
    prepared: Prepared | None
    """None where base or data are stated, not there."""

    def schedule(self) -> Schedule:
        """Steps of the run."""
        if self.prepared is None:
            return schedule_of(self.recipe.optimisation, len(self.lengths))
        return plan_schedule(self.recipe, [length for length, _ in self.lengths], self.max_length)

    def largest_batch(self, size: int) -> Batch:
        """The largest batch of `size` examples. Stated data are taken to reach max_length."""
        if self.recipe.packing == "fill":
            learned = self.max_length if self.recipe.loss == "all" else round(self.max_length * self._learned_share())
            return Batch(1, size * self.max_length, size * learned)
        chosen = sorted(self.lengths, reverse=True)[:size]
        longest = self.max_length if self.prepared is None else chosen[0][0]
        learned = sum(answer for _, answer in chosen)
        if self.recipe.loss == "all":
            learned = sum(length - 1 for length, _ in chosen) if self.prepared else size * (longest - 1)
        if self.recipe.packing == "batch":
            return Batch(1, size * longest if self.prepared is None else sum(n for n, _ in chosen), learned)
        return Batch(len(chosen) if self.prepared else size, longest, max(1, learned))

    def _learned_share(self) -> float:
        return sum(answer for _, answer in self.lengths) / max(1, sum(length for length, _ in self.lengths))


def find_setting(recipe: Recipe, registry: Registry | None, cuda: bool) -> Setting:
    """Base and data of the recipe for a device with or without CUDA. Nothing is downloaded: a base of the hub that has
    a record is planned from it, with the data that the recipe states under `data.expected`.

    Raises what `prepare` raises, InvalidError (NOT_PLANNABLE) for a recorded base without stated data.
    """
    record = known_base(recipe.base_like or recipe.base)
    if record is not None:
        return _from_record(recipe, record, cuda)
    prepared = prepare(recipe, registry, cuda=cuda)
    folder = prepared.base.folder
    learned_all = prepared.recipe.loss == "all"
    return Setting(
        recipe=prepared.recipe,
        reference=prepared.base.reference,
        config=read_config(folder),
        shapes=read_shapes(folder, prepared.base.identity),
        parameters=sum(weights.tensors[name].size for name, weights in open_all(folder).items()),
        file_bytes=sum(path.stat().st_size for path in weight_files(folder)),
        task=prepared.task,
        lengths=[(e.length, e.length - 1 if learned_all else len(e.answer)) for e in prepared.training],
        max_length=prepared.max_length,
        substitutions=prepared.substitutions,
        prepared=prepared,
    )


def _from_record(recipe: Recipe, record: KnownBase, cuda: bool) -> Setting:
    stated = recipe.data.expected
    if stated is None:
        raise InvalidError(
            f"{recipe.base} is planned from its record, without tokenizer: state the size of the data under "
            "`data.expected` (rows, tokens_per_row), or give a local base with --base dir:FOLDER",
            reason="NOT_PLANNABLE",
            field="data.expected",
        )
    recipe, changed = substituted(recipe, cuda)
    settings = recipe.task
    count = len(settings.added_tokens) + (_BLIND_TOKENS if settings.format == "blind" else 0)
    if settings.kind == "classification" and settings.label_tokens:
        count += stated.labels
    shapes = record.shapes()
    rows = max(shapes.rows, shapes.vocabulary + count)
    added = [AddedToken(content=f"<{i}>", id=shapes.vocabulary + i) for i in range(count)]
    max_length = min(recipe.max_length or record.context, record.context)
    tokens = min(stated.tokens_per_row, max_length)
    learned = tokens - 1 if recipe.loss == "all" else min(stated.answer_tokens, tokens)
    return Setting(
        recipe=recipe,
        reference=recipe.base,
        config={**record.config, "vocab_size": rows},
        shapes=BaseShapes(shapes.modules, shapes.hidden, shapes.vocabulary, rows, shapes.tied),
        parameters=record.parameters,
        file_bytes=2 * record.parameters,
        task=default_task("generate", added_tokens=tuple(added)),
        lengths=[(tokens, learned)] * stated.rows,
        max_length=max_length,
        substitutions=tuple(changed),
        prepared=None,
    )
