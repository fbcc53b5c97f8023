"""Hot swap under load: what callers saw while an alias moved, and how long each stage took."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_bench.load.record import RequestRecord

EXAMPLES = 5
"""Wrong replies that a report shows."""


@dataclass(frozen=True)
class Target:
    """A revision of the adapter under test."""

    number: int
    digest: str


def wrong_reply(record: RequestRecord, old: Target, new: Target, acknowledged: float | None) -> str | None:
    """Why an answered request was answered by a revision that must not have answered it; None if all is well.

    `acknowledged` is when the server said that the alias means `new` (seconds on the run's clock): requests sent later
    must be answered by `new`. None means that it never said so, and then the old one may answer.
    """
    expected = {old.number: old.digest, new.number: new.digest}
    if record.revision not in expected:
        return f"revision {record.revision} is neither {old.number} nor {new.number}"
    if record.digest != expected[record.revision]:
        return f"digest {record.digest[:19]} is not that of revision {record.revision}"
    stale = record.revision == old.number and old.number != new.number
    if stale and acknowledged is not None and record.sent is not None and record.sent > acknowledged:
        return f"revision {old.number} answered a request sent {record.sent - acknowledged:.3f} s after the flip"
    return None


@dataclass(frozen=True)
class Moments:
    """When things happened, in seconds on the run's clock; None for what never did."""

    move_started: float
    move_written: float
    """The alias log has the new entry."""
    acknowledged: float | None
    """The server has flipped its table."""


def account(
    records: Sequence[RequestRecord], old: Target, new: Target, moments: Moments, publish_seconds: float | None
) -> dict[str, Any]:
    """The swap in the form of report files: `requests`, `failed`, `wrong_revision`, `seconds` per stage.

    Stages: `publish` stores the new revision; `alias_move` writes the log entry; `move_seen` runs from there to the
    server's flip; `first_new_answer` from the start of the move to the end of the first answer by `new`.
    """
    answered = [record for record in records if record.ok]
    failed = [record for record in records if not record.ok]
    wrong = [
        {"index": record.index, "sent": record.sent, "why": why}
        for record in answered
        if (why := wrong_reply(record, old, new, moments.acknowledged)) is not None
    ]
    first_new = min((r.end for r in answered if r.revision == new.number and r.end is not None), default=None)
    last_old = max((r.end for r in answered if r.revision == old.number and r.end is not None), default=None)
    seen = moments.acknowledged
    return {
        "requests": len(records),
        "failed": len(failed),
        "errors": dict(Counter(record.reason or record.status for record in failed)),
        "wrong_revision": len(wrong),
        "wrong_examples": wrong[:EXAMPLES],
        "old_revision": old.number,
        "new_revision": new.number,
        "answered_by": {str(revision): n for revision, n in sorted(Counter(r.revision for r in answered).items())},
        "seconds": {
            "publish": publish_seconds,
            "alias_move": moments.move_written - moments.move_started,
            "move_seen": None if seen is None else max(0.0, seen - moments.move_written),
            "first_new_answer": None if first_new is None else first_new - moments.move_started,
            "last_old_answer": None if last_old is None else last_old - moments.move_started,
        },
        "completed": first_new is not None,
    }
