"""Scores answers that somebody else has collected: columns `answer` and `reference` of a file."""

from collections.abc import Sequence
from typing import Any

from loradeck_bench.evaluation.answers import TEXT, Metric
from loradeck_bench.evaluation.scoring import data_digest, score
from loradeck_bench.rows import CATEGORY, read_sample
from loradeck_registry.errors import InvalidError

ANSWER = "answer"


def score_rows(
    source: str, columns: Sequence[str], limit: int | None, name: str, metrics: Sequence[Metric] = TEXT
) -> dict[str, Any]:
    """Score the column `answer` against `reference`; other fields that `columns` name are what was asked.

    An empty answer is scored as one. Raises what `read_sample` raises, and InvalidError where a reference is not of the
    metric's form.
    """
    if not any(text.startswith(f"{ANSWER}=") for text in columns):
        columns = [*columns, f"{ANSWER}={ANSWER}"]
    every, rows, where = read_sample(source, "generate", columns, limit, optional=(ANSWER,))
    asked = [{key: value for key, value in row.items() if key != ANSWER} for row in rows]
    scored = score("generate", rows, {number: row[ANSWER] for number, row in enumerate(rows)}, metrics=metrics)
    if not scored.by_row:
        raise InvalidError("no row has a reference: say where it is (--column reference=…)", field="data")
    return {
        **scored.figures,
        "task": "generate",
        "adapter": name,
        "rows": len(rows),
        "answered": len(rows),
        "failed": 0,
        "data_digest": data_digest(asked),
        "answered_by": [{"name": name, "revision": 0, "digest": "", "rows": len(rows)}],
        "source": f"{len(rows)} of {len(every)} rows of {where}",
        "items": [_item(number, row, scored.by_row.get(number)) for number, row in enumerate(rows)],
    }


def _item(number: int, row: dict[str, str], scores: dict[str, Any] | None) -> dict[str, Any]:
    fields = {key: value for key, value in row.items() if key not in (ANSWER, "reference", CATEGORY)}
    item: dict[str, Any] = {
        "row": number,
        "gold": row["reference"],
        "answer": row[ANSWER],
        "status": "ok",
        "reason": "",
    }
    return item | {"fields": fields, CATEGORY: row[CATEGORY]} | ({"scores": scores} if scores else {})
