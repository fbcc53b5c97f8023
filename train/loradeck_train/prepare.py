"""What a run and its plan have in common: base, task, tokenizer, data and token ids, without loading the model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loradeck_registry.bases.identity import read_config
from loradeck_registry.bases.resolve import ResolvedBase, resolve_base
from loradeck_registry.registry import Registry
from loradeck_tasks.rendering import tokenizer_for
from loradeck_tasks.task import Task
from loradeck_train.data.dataset import DataSet, load_data
from loradeck_train.data.encoding import Encoded, TokenCounts, count_tokens, encode_examples
from loradeck_train.data.examples import Example
from loradeck_train.data.mixing import mix
from loradeck_train.data.rows import describe_source
from loradeck_train.data.statistics import token_statistics
from loradeck_train.data.tasks import make_part_task, make_task, template_fields
from loradeck_train.model.untrained import untrained_sentence
from loradeck_train.recipe.settings import Recipe
from loradeck_train.recipe.substitutions import substituted

_DEFAULT_LENGTH = 2048
_LOOKED_AT = 64


@dataclass(frozen=True)
class Prepared:
    """Everything decided before the model is loaded. `training` holds the rows of all tasks, as often as they come in
    an epoch; `statistics` has a row per task. `substitutions` are sentences: what was asked, what is done."""

    recipe: Recipe
    base: ResolvedBase
    task: Task
    tokenizer: Any
    data: DataSet
    training: Sequence[Encoded]
    validation: Sequence[Encoded]
    test: Sequence[Encoded]
    counts: TokenCounts
    statistics: tuple[dict[str, Any], ...]
    max_length: int
    substitutions: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """Sentences about what will probably not work."""


def prepare(recipe: Recipe, registry: Registry | None, *, cuda: bool | None = None) -> Prepared:
    """Resolve, read, render and count. `cuda`: whether it will run on a GPU; unset: as here. Raises what the parts
    raise: a bad base, bad data, no reserved rows."""
    # Data first: its errors are the likeliest, and a large base takes long to digest.
    recipe, substitutions = substituted(recipe, torch.cuda.is_available() if cuda is None else cuda)
    data = load_data(recipe, template_fields(recipe.task))
    base = resolve_base(recipe.base, registry)
    task = make_task(recipe.task, data.labels, base.identity, base.folder)
    tokenizer = tokenizer_for(task, base.folder)
    max_length = _max_length(recipe, base, substitutions)
    parts: list[tuple[Sequence[Encoded], float]] = []
    statistics = []
    truncated = 0
    for name, part_task, examples, weight in _tasks(recipe, data, task):
        encoded, cut = encode_examples(examples, part_task, tokenizer, max_length, on_disk=recipe.data.streaming)
        parts.append((encoded, weight))
        statistics.append(token_statistics(name, part_task, encoded, cut, tokenizer))
        truncated += cut
    training = mix(parts, recipe.seed)
    validation, _ = encode_examples(data.validation, task, tokenizer, max_length, on_disk=recipe.data.streaming)
    test, _ = encode_examples(data.test, task, tokenizer, max_length, on_disk=recipe.data.streaming)
    looked_at = [[*e.prompt, *e.answer] for e in training[:_LOOKED_AT]]
    warning = untrained_sentence(base.folder, base.identity.vocabulary, tokenizer, looked_at)
    return Prepared(
        recipe=recipe,
        base=base,
        task=task,
        tokenizer=tokenizer,
        data=data,
        training=training,
        validation=validation,
        test=test,
        counts=count_tokens(training, truncated),
        statistics=tuple(statistics),
        max_length=max_length,
        substitutions=tuple(substitutions),
        warnings=() if warning is None else (warning,),
    )


def _tasks(recipe: Recipe, data: DataSet, task: Task) -> Iterator[tuple[str, Task, Sequence[Example], float]]:
    """Source, task, rows and weight of the main task and of those trained along."""
    yield data.source, task, data.training, recipe.data.weight
    for part in data.parts:
        part_task = make_part_task(part.settings.task, part.labels)
        yield describe_source(part.settings.source), part_task, part.examples, part.settings.weight


def pad_token_id(tokenizer: Any) -> int:
    """A token to fill batches with; it is masked, so any will do."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _max_length(recipe: Recipe, base: ResolvedBase, substitutions: list[str]) -> int:
    context = read_config(base.folder).get("max_position_embeddings")
    if not isinstance(context, int):
        return recipe.max_length or _DEFAULT_LENGTH
    if recipe.max_length is not None and recipe.max_length > context:
        substitutions.append(f"max_length {recipe.max_length}: {context}, the context of the base")
    return min(recipe.max_length or context, context)
