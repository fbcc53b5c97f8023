"""Answers to figures: of a task, over the rows that were answered, in the form of result files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loradeck_bench.evaluation.answers import TEXT, Metric, answer_figures
from loradeck_bench.evaluation.categories import by_category
from loradeck_bench.evaluation.classification import evaluate_classification
from loradeck_bench.evaluation.figure import Figure, mean
from loradeck_bench.evaluation.judge.rubric import category_name
from loradeck_bench.evaluation.measured import flatten
from loradeck_bench.evaluation.words import DESCRIPTION, words
from loradeck_bench.rows import CATEGORY, COLUMNS, Row, field_names
from loradeck_registry.errors import InvalidError


@dataclass(frozen=True)
class Scored:
    """`figures` in the form of result files, and by row what each figure adds up, for tests between two evaluations."""

    figures: dict[str, Any]
    by_row: dict[int, dict[str, Any]] = field(default_factory=dict)


def score(
    task: str,
    rows: Sequence[Row],
    answers: Mapping[int, str],
    *,
    labels: Sequence[str] = (),
    probabilities: Mapping[int, float] | None = None,
    metrics: Sequence[Metric] = TEXT,
) -> Scored:
    """Score `answers` by row number. `labels` and `probabilities` (of the answer) are of a classification.

    Rows without a reference are not scored, and counted in `without_reference`; rows of several categories also get
    `by_category` and `macro`. Raises InvalidError if a gold label is
    none of the labels, or a reference is not of the metric's form.
    """
    numbers = sorted(answers)
    column = COLUMNS[task][-1]
    try:
        if task == "classification":
            gold, texts = [rows[number][column] for number in numbers], [answers[number] for number in numbers]
            sure = [probabilities[number] for number in numbers] if probabilities else None
            return Scored(evaluate_classification(gold, texts, labels, sure))
        scored = [number for number in numbers if rows[number][column].strip()]
        without = {"without_reference": len(numbers) - len(scored)} if len(scored) < len(numbers) else {}
        if not scored:
            return Scored(without | flatten({}))
        gold, texts = [rows[number][column] for number in scored], [answers[number] for number in scored]
        figures = answer_figures(texts, gold, metrics)
    except ValueError as error:
        raise InvalidError(str(error), reason="BAD_DATA", field="data") from None
    result = in_result_form(figures, scored)
    chosen = [rows[number] for number in scored]
    shares = by_category(
        {**figures, **_lengths(chosen, gold)}, [category_name(row.get(CATEGORY, "")) for row in chosen]
    )
    return Scored(result.figures | without | shares, result.by_row)


def in_result_form(figures: Mapping[str, Figure], numbers: Sequence[int]) -> Scored:
    """Figures over the rows `numbers`. `combined` in the result says how each figure is made of its rows' `scores`: of
    one number its mean, of several by their sums (see COMBINED)."""
    kinds = {name: figure.kind for name, figure in figures.items() if figure.kind is not None}
    by_row: dict[int, dict[str, Any]] = {}
    for position, number in enumerate(numbers):
        by_row[number] = {name: _compact(figures[name].parts[position].tolist(), kinds[name]) for name in kinds}
    measured = flatten({name: figure.measured() for name, figure in figures.items()})
    extra = [name for name in figures if ":" in name]
    return Scored({**measured, "extra_metrics": extra, "combined": kinds}, by_row)


def data_digest(rows: Sequence[Row]) -> str:
    """`sha256:…` of the rows that were asked: two evaluations compare only where it is the same."""
    text = json.dumps(list(rows), sort_keys=True, ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _lengths(rows: Sequence[Row], references: Sequence[str]) -> dict[str, Figure]:
    """Mean length of what is asked and of its references, in any script."""
    asked = [sum(len(words(row[name])) for name in field_names(row)) for row in rows]
    return {
        "prompt_words": mean(asked, f"fields that fill the template; {DESCRIPTION}"),
        "reference_words": mean([len(words(text)) for text in references], DESCRIPTION),
    }


def _compact(parts: list[float], kind: str | None) -> float | list[float]:
    """A mean's item as one number."""
    return parts[0] if kind == "ratio" and parts[1] == 1 else parts
