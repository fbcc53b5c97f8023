"""What churn did to a load: replies by a wrong revision or with another answer, and times beside those of calm."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loradeck_bench.asking import Asking
from loradeck_bench.load.churn import Asked, Churn, alias_of
from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.flips import allowed
from loradeck_bench.load.record import RequestRecord
from loradeck_registry.errors import LoradeckError
from loradeck_registry.reference import Reference

AFTER = 1.0
"""Seconds after an operation in which requests still count as under churn."""
GOLDEN = 50
"""Rows that first revisions are asked afterwards."""
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
    during: list[RequestRecord] = []
    calm: list[RequestRecord] = []
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


def _key(churn: Churn, adapter: str) -> str:
    """The alias under churn that a reference means, as flips name it; empty if none."""
    if not adapter:
        return ""
    reference = Reference.parse(adapter)
    alias = alias_of(reference, {one.alias for one in churn.aliases if one.name == reference.name})
    return f"{reference.name}@{alias}" if alias else ""


def _wrong(churn: Churn, record: RequestRecord) -> dict[str, Any] | None:
    key = _key(churn, record.adapter)
    if not key:
        return None
    sent = record.intended if record.sent is None else record.sent
    right = allowed(churn.flips, churn.initial[key], key, sent, sent if record.end is None else record.end)
    if record.digest in right:
        return None
    return {"index": record.index, "adapter": record.adapter, "revision": record.revision, "sent": record.sent}


async def ask_golden(asking: Asking, churn: Churn, records: Sequence[RequestRecord]) -> None:
    """Ask the first revisions, now that all is calm, rows that only copies have answered: GOLDEN of them at most, one
    after the other. What fails is left out."""
    known = _first_answers(churn, records)
    wanted = {_asked(record): record for record in _by_copies(churn, records) if _asked(record) not in known}
    for key, record in list(wanted.items())[:GOLDEN]:
        pinned = str(next(one.first for one in churn.aliases if one.key == _key(churn, record.adapter)))
        subject = replace(asking.subjects[record.adapter], adapter=pinned)
        again = RequestRecord(0, pinned, record.task, record.row, 0.0, max_tokens=record.max_tokens)
        with contextlib.suppress(LoradeckError):
            async with replace(asking, subjects={pinned: subject}).opened() as ask:
                await ask(again, lambda: 0.0)
            churn.golden[key] = again.text


def _asked(record: RequestRecord) -> Asked:
    return record.adapter, record.row, record.max_tokens


def _by_copies(churn: Churn, records: Sequence[RequestRecord]) -> list[RequestRecord]:
    copies = {revision.digest for one in churn.aliases for revision in one.known} - set(churn.initial.values())
    return [r for r in records if r.ok and r.digest in copies and _key(churn, r.adapter)]


def _first_answers(churn: Churn, records: Sequence[RequestRecord]) -> dict[Asked, set[str]]:
    """Answers of first revisions: those given under load, and those asked for afterwards."""
    initial = set(churn.initial.values())
    found: dict[Asked, set[str]] = defaultdict(set)
    for record in records:
        if record.ok and record.digest in initial:
            found[_asked(record)].add(record.text)
    for key, text in churn.golden.items():
        found[key].add(text)
    return found


def _answers(churn: Churn, answered: Sequence[RequestRecord]) -> tuple[int, int]:
    first = _first_answers(churn, answered)
    compared = [record for record in _by_copies(churn, answered) if _asked(record) in first]
    return len(compared), sum(record.text not in first[_asked(record)] for record in compared)
