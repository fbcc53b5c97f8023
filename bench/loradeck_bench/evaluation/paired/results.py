"""Result files of evaluations: read, matched row by row, and their figures built again over the rows that match."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loradeck_bench.evaluation.answers import bleu, chrf
from loradeck_bench.evaluation.calibration import calibration
from loradeck_bench.evaluation.classification import class_figures
from loradeck_bench.evaluation.figure import Figure, combined
from loradeck_bench.evaluation.judge.totals import macro
from loradeck_registry.errors import InvalidError, NotFoundError

Item = Mapping[str, Any]


def read_result(path: Path) -> dict[str, Any]:
    """A file that `loradeck eval … --json` wrote. Raises NotFoundError or InvalidError (NO_RESULT)."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFoundError(f"no result at {path}: {error.strerror}", field="result") from None
    except ValueError:
        result = None
    if not isinstance(result, dict) or not {"items", "methods"} <= set(result):
        raise InvalidError(
            f"{path} is no result of an evaluation: write one with `loradeck eval … --json {path.name}`",
            reason="NO_RESULT",
            field="result",
        )
    return result


def matched(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[Item, Item]]:
    """Rows that both models answered. Raises InvalidError (OTHER_DATA) if they were asked different rows, or none of
    them was answered by both."""
    ours, theirs = ({item["row"]: item for item in result["items"]} for result in (first, second))
    common = sorted(set(ours) & set(theirs))
    same = first.get("data_digest") == second.get("data_digest") and all(
        ours[row]["gold"] == theirs[row]["gold"] for row in common
    )
    if not same:
        raise InvalidError(
            "the two evaluations are of different rows: run both with the same --data, --column and --limit",
            reason="OTHER_DATA",
            field="result",
        )
    pairs = [(ours[row], theirs[row]) for row in common]
    answered = [pair for pair in pairs if all(item.get("status", "ok") == "ok" for item in pair)]
    if not answered:
        raise InvalidError("no row was answered in both evaluations", reason="OTHER_DATA", field="result")
    return answered


def figures_of(result: Mapping[str, Any], items: Sequence[Item], name: str) -> Figure | None:
    """The figure `name` of a result over `items`; None where it cannot be built again from a file."""
    if name in result.get("combined", {}):
        parts = [item["scores"][name] for item in items]
        return combined(
            result["combined"][name], [part if isinstance(part, list) else (part, 1.0) for part in parts], ""
        )
    if name == "judge_macro":
        return macro([item["scores"]["judge_mean"] for item in items], [item["category"] for item in items], "")
    gold, answers = [item["gold"] for item in items], [item["answer"] for item in items]
    if result.get("task") == "classification":
        found = class_figures(gold, answers, result["confusion"]["labels"][:-1])
        if all("probability" in item for item in items):
            right = [a == b for a, b in zip(gold, answers, strict=True)]
            found |= calibration(right, [item["probability"] for item in items])[0]
        return found.get(name)
    texts = {"bleu": bleu, "chrf": chrf}
    return texts[name](answers, gold)[name] if name in texts else None
