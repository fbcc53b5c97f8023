"""Accounting of flips under load: which revision a reply may come from, what it must say, and when it came."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_bench.load.figures.spread import spread
from loradeck_bench.load.flips import Flip, allowed
from loradeck_bench.load.record import RequestRecord

EXAMPLES = 5
"""Wrong replies that a report shows."""

Golden = Mapping[tuple[str, int], str]
"""Text of a reply by digest (empty: the base) and number of the prompt."""


Span = tuple[float, float]
"""From and until, in seconds on the run's clock."""


@dataclass(frozen=True)
class Flipping:
    """What was done to the server, in order of time."""

    flips: Sequence[Flip]
    calm: Sequence[Span]
    """Load alone, before a stretch of flips."""
    busy: Sequence[Span]
    """From the start of each flip to the next."""


def wrong_reply(record: RequestRecord, flips: Sequence[Flip], initial: Mapping[str, str], golden: Golden) -> str | None:
    """Why an answered request got a reply that it must not have got; None if all is well."""
    expected = golden.get((record.digest, record.row))
    if expected is None:
        return f"digest {record.digest[:19] or '(none)'} is of no revision under test"
    name = record.adapter.partition("@")[0]
    if not name:
        if record.digest:
            return f"a request to the base was answered by {record.answered_by}"
    else:
        sent = record.sent if record.sent is not None else record.intended
        digests = allowed(flips, initial[name], name, sent, record.end if record.end is not None else sent)
        if record.digest not in digests:
            return f"{name} did not mean digest {record.digest[:19]} while the request ran"
    if record.text != expected:
        return f"the answer is not that of digest {record.digest[:19] or '(base)'}"
    return None


def first_tokens(records: Sequence[RequestRecord], flips: Sequence[Flip]) -> list[float | None]:
    """Per flip, seconds from its start to the first token of the first reply by the new revision; None without one."""
    found: list[float | None] = []
    for flip in flips:
        times = [
            record.first - flip.started
            for record in records
            if record.ok
            and record.digest == flip.digest
            and record.adapter.partition("@")[0] == flip.name
            and record.first is not None
            and record.first > flip.started
        ]
        found.append(min(times, default=None))
    return found


def account(
    records: Sequence[RequestRecord], flipping: Flipping, initial: Mapping[str, str], golden: Golden
) -> dict[str, Any]:
    """The result in the form of report files. `initial`: what each name's alias meant at first.

    Times `before` are of requests meant for a calm span, those `during` of requests meant for a busy one.
    """
    flips = flipping.flips
    answered = [record for record in records if record.ok]
    failed = [record for record in records if not record.ok]
    wrong = [
        {"index": record.index, "adapter": record.adapter, "sent": record.sent, "why": why}
        for record in answered
        if (why := wrong_reply(record, flips, initial, golden)) is not None
    ]
    before = spread(record.ttft for record in answered if _inside(record, flipping.calm))
    during = spread(record.ttft for record in answered if _inside(record, flipping.busy))
    firsts = first_tokens(answered, flips)
    times = spread(firsts)
    p99 = [None if part is None else part["p99"] for part in (before, during)]
    return {
        "flips": len(flips),
        "requests": len(records),
        "failed": len(failed),
        "errors": dict(Counter(record.reason or record.status for record in failed)),
        "replies_checked": len(answered),
        "wrong_revision": len(wrong),
        "wrong_examples": wrong[:EXAMPLES],
        "flip_to_first_token_ms": {key: None if times is None else times[key] for key in ("p50", "p99")},
        "flips_never_answered": firsts.count(None),
        "flips_never_acknowledged": sum(flip.acknowledged is None for flip in flips),
        "ttft_p99_before_ms": p99[0],
        "ttft_p99_during_ms": p99[1],
        "ttft_p99_ratio": p99[1] / p99[0] if p99[0] and p99[1] else None,
        "requests_before": before["count"] if before else 0,
        "requests_during": during["count"] if during else 0,
    }


def _inside(record: RequestRecord, spans: Sequence[Span]) -> bool:
    return any(begin <= record.intended < end for begin, end in spans)
