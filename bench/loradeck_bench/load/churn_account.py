"""What churn did to a load: replies by a wrong revision or with another answer, and times beside those of calm."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from loradeck_bench.load.churn import Churn, alias_of
from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.flips import allowed
from loradeck_bench.load.record import RequestRecord
from loradeck_registry.reference import Reference

AFTER = 1.0
"""Seconds after an operation in which requests still count as under churn."""
EXAMPLES = 5
"""Wrong replies that a report shows."""


def account(churn: Churn, records: Sequence[RequestRecord]) -> dict[str, Any]:
    """`churn` of report files.

    `wrong_revision`: replies by a revision that the alias did not mean, nor may have, while the request ran.
    `different_answers`: of `copies_compared` replies by a published copy to a row that the first revision answered too,
    those with another text; the weights are the same, so only rounding in other batches can be the cause. Times are of
    requests meant for an operation or the second after it, and of all others.
    """
    answered = [record for record in records if record.ok]
    wrong = [found for record in answered if (found := _wrong(churn, record)) is not None]
    spans = [(one.started, one.ended + AFTER) for one in churn.done]
    during, calm = [], []
    for record in records:
        (during if any(begin <= record.intended < end for begin, end in spans) else calm).append(record)
    compared, different = _answers(churn, answered)
    return {
        "operations": churn.describe(),
        "counts": dict(Counter(one.what for one in churn.done if not one.error)),
        "failed_operations": sum(bool(one.error) for one in churn.done),
        "replies_checked": len(answered),
        "wrong_revision": len(wrong),
        "wrong_examples": wrong[:EXAMPLES],
        "copies_compared": compared,
        "different_answers": different,
        "during": _times(during),
        "calm": _times(calm),
    }


def _times(records: Sequence[RequestRecord]) -> dict[str, Any]:
    return {
        "requests": len(records),
        "failed": sum(not record.ok for record in records),
        "latency_ms": spread(record.latency for record in records if record.ok),
        "ttft_ms": spread(record.ttft for record in records if record.ok),
        "load_ms": spread((record.load_seconds for record in records if record.ok), bounded=False),
    }


def _wrong(churn: Churn, record: RequestRecord) -> dict[str, Any] | None:
    if not record.adapter:
        return None
    reference = Reference.parse(record.adapter)
    alias = alias_of(reference, {one.alias for one in churn.aliases if one.name == reference.name})
    key = f"{reference.name}@{alias}"
    if key not in churn.initial:
        return None
    sent = record.intended if record.sent is None else record.sent
    right = allowed(churn.flips, churn.initial[key], key, sent, sent if record.end is None else record.end)
    if record.digest in right:
        return None
    return {"index": record.index, "adapter": record.adapter, "revision": record.revision, "sent": record.sent}


def _answers(churn: Churn, answered: Sequence[RequestRecord]) -> tuple[int, int]:
    first: dict[tuple[str, int], set[str]] = defaultdict(set)
    initial = set(churn.initial.values())
    for record in answered:
        if record.digest in initial:
            first[record.adapter, record.row].add(record.text)
    copies = {revision.digest for one in churn.aliases for revision in one.known} - initial
    compared = [r for r in answered if r.digest in copies and first[r.adapter, r.row]]
    return len(compared), sum(record.text not in first[record.adapter, record.row] for record in compared)
