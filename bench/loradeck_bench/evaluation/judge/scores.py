"""Scores the answers of an evaluation by a judge: by category, with the mean of the categories' means."""

from collections.abc import Callable, Mapping
from typing import Any

from loradeck_bench.evaluation.figure import mean
from loradeck_bench.evaluation.judge.endpoint import Judge
from loradeck_bench.evaluation.judge.pool import ask_all
from loradeck_bench.evaluation.judge.rubric import Rubric, category_name, parse_score
from loradeck_bench.evaluation.judge.totals import macro
from loradeck_bench.evaluation.measured import flatten
from loradeck_registry.errors import InvalidError, LoradeckError

KEPT = ("task", "adapter", "answered_by", "data_digest", "source")
"""What a judged result says of the evaluation that it judges."""
UNCATEGORISED = "all"


def question_of(item: Mapping[str, Any]) -> str:
    """What was asked, as a judge sees it: the one field, or all of them by name. Raises InvalidError without any."""
    fields = item.get("fields")
    if not fields:
        raise InvalidError(
            "the result does not say what was asked: evaluate with --task generate, or judge a result of this version",
            reason="NO_QUESTION",
            field="result",
        )
    return next(iter(fields.values())) if len(fields) == 1 else "\n".join(f"{k}: {v}" for k, v in fields.items())


def category_of(item: Mapping[str, Any], merged: Mapping[str, str]) -> str:
    """The item's category, after merging."""
    name = category_name(item.get("category") or "") or UNCATEGORISED
    return merged.get(name, name)


async def judge_scores(
    result: Mapping[str, Any],
    rubric: Rubric,
    judge: Judge,
    *,
    merged: Mapping[str, str],
    concurrency: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Ask the judge about every answered item of `result`; `merged` maps categories to the one they count in.

    A reply without a score between 0 and 1 is counted in `not_parsed`, an item about which the judge could not be asked
    in `failed`; neither enters a mean. Raises LoradeckError if the first question fails.
    """
    items = [_start(item, category_of(item, merged)) for item in result["items"] if item.get("status", "ok") == "ok"]
    if not items:
        raise InvalidError("the result holds no answer to judge", reason="EMPTY_DATA", field="result")
    prompts = {item["row"]: category_name(item.get("category") or "") for item in result["items"]}

    async def ask(item: dict[str, Any]) -> None:
        messages = rubric.messages(prompts[item["row"]], question_of(item), item["gold"], item["answer"])
        item["reply"] = await judge.ask(messages)
        score = parse_score(item["reply"])
        item["status"] = "not_parsed" if score is None else "ok"
        if score is not None:
            item["scores"] = {"judge_mean": score}

    def failed(item: dict[str, Any], error: LoradeckError) -> None:
        item |= {"status": "failed", "reason": error.reason}

    unfinished = await ask_all(items, ask, failed, concurrency, progress)
    return summary(result, items, judge, rubric.source) | ({"unfinished": unfinished} if unfinished else {})


def summary(result: Mapping[str, Any], items: list[dict[str, Any]], judge: Judge, rubric: str) -> dict[str, Any]:
    """The judged result in the form of result files. Raises InvalidError if no reply had a score."""
    scored = [item for item in items if item["status"] == "ok"]
    counts = {status: sum(item["status"] == status for item in items) for status in ("not_parsed", "failed")}
    if not scored:
        raise InvalidError(
            f"the judge gave no score that could be read: {counts['not_parsed']} replies without one, the first: "
            f"{next((item['reply'] for item in items if item['status'] == 'not_parsed'), '')[:120]!r}",
            reason="NO_SCORES",
            field="model",
        )
    how = f"{judge.settings.describe()}; rubric {rubric}; scores 0 to 1, replies without one left out"
    values, categories = [item["scores"]["judge_mean"] for item in scored], [item["category"] for item in scored]
    figures = {
        "judge_macro": macro(values, categories, f"{how}; mean of the means by category"),
        "judge_mean": mean(values, f"{how}; mean over items"),
    }
    return {
        **{key: result[key] for key in KEPT if key in result},
        **flatten({name: figure.measured() for name, figure in figures.items()}),
        "combined": {"judge_mean": "ratio"},
        "judge": how,
        "rows": len(items),
        "answered": len(scored),
        **counts,
        "not_answered": len(result["items"]) - len(items),
        "by_category": {name: _category(items, name) for name in sorted({item["category"] for item in items})},
        "requests": {"sent": judge.asked, "from_cache": judge.from_cache, "retried": judge.retried},
        "items": items,
    }


def _start(item: Mapping[str, Any], category: str) -> dict[str, Any]:
    kept = {key: item[key] for key in ("row", "gold", "answer", "fields") if key in item}
    return kept | {"category": category, "status": "not_asked", "reason": "", "reply": ""}


def _category(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    own = [item for item in items if item["category"] == name]
    scores = [item["scores"]["judge_mean"] for item in own if item["status"] == "ok"]
    return {
        "items": len(own),
        "scored": len(scores),
        **{status: sum(item["status"] == status for item in own) for status in ("not_parsed", "failed", "not_asked")},
        "mean": sum(scores) / len(scores) if scores else None,
    }
