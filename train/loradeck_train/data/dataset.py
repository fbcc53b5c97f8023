"""The rows of a run: training, validation and test parts, tasks trained along, labels, digest, and what leaks."""

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from loradeck_registry.errors import InvalidError
from loradeck_train.data.examples import (
    Example,
    answer_field,
    check_columns,
    check_labels,
    digest,
    dump_example,
    load_example,
    map_rows,
)
from loradeck_train.data.leakage import Leakage, find_leakage, refuse_leakage
from loradeck_train.data.rows import describe_source, iterate_rows
from loradeck_train.data.spool import Chosen, Spool
from loradeck_train.data.tasks import template_fields
from loradeck_train.recipe.data import MixtureData, ValidationData
from loradeck_train.recipe.settings import Recipe

Examples = Sequence[Example]


@dataclass(frozen=True)
class Part:
    """Rows of a task that is trained along; `labels` are those of its classification, if it is one."""

    settings: MixtureData
    examples: Examples
    labels: tuple[str, ...]


@dataclass(frozen=True)
class DataSet:
    """The rows of a run. `digest` is sha256 over the canonical JSON of all examples: training, validation, test, parts.
    `leakage` says by held-out part what also stands in the training rows."""

    training: Examples
    validation: Examples
    test: Examples
    parts: tuple[Part, ...]
    labels: tuple[str, ...]
    digest: str
    source: str
    leakage: dict[str, Leakage]


def load_data(recipe: Recipe, fields: Sequence[str]) -> DataSet:
    """Read, map and check the rows of a recipe whose template names `fields`.

    Raises NotFoundError, PreconditionError (EMPTY_DATA, DATA_LEAKAGE) or InvalidError with reason MISSING_COLUMN,
    BAD_ROW, BAD_LABEL (a label outside the set, with its row) or BAD_DATA.
    """
    settings, kind = recipe.data, recipe.task.kind
    wanted = (*fields, answer_field(kind))
    check_columns(settings, wanted)
    rows = map_rows(
        iterate_rows(settings.source, settings.split, settings.limit), settings.columns, wanted, settings.source
    )
    training = _kept(recipe, rows)
    listed = None if recipe.task.labels == "from_data" else recipe.task.labels
    if kind == "classification" and listed is not None:
        # Before rows are held out, so that the numbers are those of the file.
        check_labels(training, listed, settings.source)
    training, held_out = _held_out(recipe, training, wanted)
    labels: tuple[str, ...] = ()
    if kind == "classification":
        labels = tuple(listed) if listed is not None else tuple(sorted({e.answer for e in training}))
        for name, part in (("validation", settings.validation), ("test", settings.test)):
            if part is not None and part.fraction is not None:
                _check_every_label_is_trained(held_out[name], labels, name)
            else:
                check_labels(held_out[name], labels, f"the {name} rows")
    parts = tuple(_part(recipe, part) for part in settings.mixture)
    everything = itertools.chain(training, held_out["validation"], held_out["test"], *(p.examples for p in parts))
    return DataSet(
        training=training,
        validation=held_out["validation"],
        test=held_out["test"],
        parts=parts,
        labels=labels,
        digest=digest(everything),
        source=describe_source(settings.source),
        leakage=_leakage(recipe, training, held_out),
    )


def _kept(recipe: Recipe, examples: Iterable[Example]) -> Examples:
    return Spool(examples, dump_example, load_example) if recipe.data.streaming else tuple(examples)


def _held_out(recipe: Recipe, training: Examples, wanted: Sequence[str]) -> tuple[Examples, dict[str, Examples]]:
    """Training rows without those held out, and these by name; fractions are of all rows, and never the same rows."""
    settings = recipe.data
    order = random.Random(recipe.seed).sample(range(len(training)), len(training))
    taken: set[int] = set()
    found: dict[str, Examples] = {}
    for name, part in (("validation", settings.validation), ("test", settings.test)):
        if part is None:
            found[name] = ()
        elif part.fraction is None:
            found[name] = _own_rows(recipe, part, wanted)
        else:
            count = max(1, round(len(training) * part.fraction))
            if len(taken) + count >= len(training):
                raise InvalidError(
                    f"data.{name}.fraction leaves no training rows: there are {len(training)}",
                    reason="BAD_RECIPE",
                    field=f"data.{name}.fraction",
                )
            chosen = sorted(order[len(taken) : len(taken) + count])
            taken.update(chosen)
            found[name] = _picked(recipe, training, chosen[: part.limit])
    if not taken:
        return training, found
    return _picked(recipe, training, [i for i in range(len(training)) if i not in taken]), found


def _picked(recipe: Recipe, examples: Examples, numbers: Sequence[int]) -> Examples:
    return Chosen(examples, numbers) if recipe.data.streaming else tuple(examples[i] for i in numbers)


def _own_rows(recipe: Recipe, part: ValidationData, wanted: Sequence[str]) -> Examples:
    source = part.source or recipe.data.source
    rows = iterate_rows(source, part.split or recipe.data.split, part.limit)
    return _kept(recipe, map_rows(rows, recipe.data.columns, wanted, source))


def _part(recipe: Recipe, settings: MixtureData) -> Part:
    wanted = (*template_fields(settings.task), answer_field(settings.task.kind))
    check_columns(settings, wanted)
    rows = iterate_rows(settings.source, settings.split, settings.limit)
    examples = _kept(recipe, map_rows(rows, settings.columns, wanted, settings.source))
    labels: tuple[str, ...] = ()
    if settings.task.kind == "classification":
        listed = settings.task.labels
        labels = tuple(sorted({e.answer for e in examples})) if listed == "from_data" else tuple(listed)
        check_labels(examples, labels, settings.source)
    return Part(settings, examples, labels)


def _leakage(recipe: Recipe, training: Examples, held_out: dict[str, Examples]) -> dict[str, Leakage]:
    if recipe.data.leakage == "off":
        return {}
    found = {
        name: find_leakage(_texts(training), _texts(examples)) for name, examples in held_out.items() if len(examples)
    }
    if recipe.data.leakage == "refuse":
        for name, leakage in found.items():
            refuse_leakage(leakage, name)
    return found


def _texts(examples: Examples) -> Iterator[str]:
    """What a model is asked: an answer, such as a label, may well be the same."""
    for example in examples:
        yield "\n".join(example.values.values())


def _check_every_label_is_trained(held_out: Examples, labels: Sequence[str], name: str) -> None:
    unseen = sorted({e.answer for e in held_out} - set(labels))
    if unseen:
        raise InvalidError(
            f"all rows of label {unseen[0][:60]!r} were held out for {name}: use a smaller data.{name}.fraction, "
            f"another seed, or {name} rows of their own",
            reason="BAD_LABEL",
            field=f"data.{name}.fraction",
        )
