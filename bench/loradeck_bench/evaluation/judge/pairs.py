"""Two models before a judge: every pair of answers in both orders, so that the place of an answer cannot decide."""

from collections.abc import Callable, Mapping
from typing import Any

from scipy.stats import binomtest

from loradeck_bench.evaluation.figure import mean
from loradeck_bench.evaluation.judge.endpoint import Judge
from loradeck_bench.evaluation.judge.pool import ask_all
from loradeck_bench.evaluation.judge.rubric import pair_messages, parse_verdict
from loradeck_bench.evaluation.judge.scores import category_of, question_of
from loradeck_bench.evaluation.measured import flatten
from loradeck_bench.evaluation.paired.results import matched
from loradeck_registry.errors import InvalidError, LoradeckError

_SCORES = {"first": 0.0, "tie": 0.5, "second": 1.0}


async def judge_pairs(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    judge: Judge,
    *,
    merged: Mapping[str, str],
    concurrency: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Ask about every row that both models answered, twice.

    A model wins a row that it wins in both orders; all else is a tie, and `inconsistent` counts the rows where the two
    replies name different models. A row with a reply that names none is in `not_parsed` and not scored. `win_rate` is
    the second model's: wins, and ties by half. `p` is a sign test of the rows that are no tie.
    """
    items = [
        {
            "row": ours["row"], "gold": ours["gold"], "question": question_of(ours),
            "category": category_of(ours, merged), "answers": [ours["answer"], theirs["answer"]], "replies": [],
            "status": "not_asked", "reason": "",
        }
        for ours, theirs in matched(first, second)
    ]  # fmt: skip

    async def ask(item: dict[str, Any]) -> None:
        one, other = item["answers"]
        replies = [
            await judge.ask(pair_messages(item["question"], item["gold"], *order))
            for order in ((one, other), (other, one))
        ]
        verdicts = [parse_verdict(reply) for reply in replies]
        item |= {"replies": replies, "verdicts": verdicts, "status": "ok"}
        if None in verdicts:
            item["status"] = "not_parsed"
        else:
            item["outcome"] = {"AB": "first", "BA": "second"}.get("".join(map(str, verdicts)), "tie")

    def failed(item: dict[str, Any], error: LoradeckError) -> None:
        item |= {"status": "failed", "reason": error.reason}

    unfinished = await ask_all(items, ask, failed, concurrency, progress)
    return _summary(items, judge) | ({"unfinished": unfinished} if unfinished else {})


def _summary(items: list[dict[str, Any]], judge: Judge) -> dict[str, Any]:
    scored = [item for item in items if item["status"] == "ok"]
    if not scored:
        raise InvalidError("the judge named no winner in any reply", reason="NO_SCORES", field="model")
    counts = {outcome: sum(item["outcome"] == outcome for item in scored) for outcome in _SCORES}
    decided = counts["first"] + counts["second"]
    how = f"{judge.settings.describe()}; both orders, a win needs both; ties count half"
    rate = mean([_SCORES[item["outcome"]] for item in scored], how)
    return {
        **flatten({"win_rate": rate.measured()}),
        "rows": len(items),
        "answered": len(scored),
        "wins": counts,
        "inconsistent": sum(item["verdicts"] in (["A", "A"], ["B", "B"]) for item in scored),
        "p": float(binomtest(counts["second"], decided).pvalue) if decided else 1.0,
        **{status: sum(item["status"] == status for item in items) for status in ("not_parsed", "failed")},
        "by_category": {
            name: sum(_SCORES[item["outcome"]] for item in scored if item["category"] == name)
            / sum(item["category"] == name for item in scored)
            for name in sorted({item["category"] for item in scored})
        },
        "requests": {"sent": judge.asked, "from_cache": judge.from_cache, "retried": judge.retried},
        "items": items,
    }
