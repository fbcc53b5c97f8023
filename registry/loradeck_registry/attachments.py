"""Attachments: evaluations, tags, notes and signatures, added to a revision later; its digest stays what it is."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from loradeck_registry import layout
from loradeck_registry.aliases.log import caller
from loradeck_registry.errors import ConflictError, InvalidError
from loradeck_registry.log import NumberedLog
from loradeck_registry.records import AttachmentRecord, EvaluationRecord, TagRecord
from loradeck_registry.reference import check_name
from loradeck_registry.secrets import check_no_secret
from loradeck_registry.stores.store import Store

AttachmentKind = Literal["evaluation", "tag", "note", "signature"]
KINDS: tuple[AttachmentKind, ...] = ("evaluation", "tag", "note", "signature")
_ATTEMPTS = 200


@dataclass(frozen=True)
class Attachment:
    """Entry `number` of one kind. `content` depends on the kind; `who` added it `when`."""

    kind: str
    number: int
    who: str
    when: datetime
    content: dict[str, Any]


def attach(store: Store, digest: str, kind: AttachmentKind, content: Mapping[str, Any], *, who: str = "") -> Attachment:
    """Add an entry to a revision's log of this kind.

    Raises InvalidError (SECRET) if the content looks like one, ConflictError after very many collisions.
    """
    check_no_secret(content, kind)
    log = _log(store, digest, kind)
    record = {
        "format": 1, "who": who or caller(), "when": datetime.now(UTC).isoformat(), "content": dict(content),
    }  # fmt: skip
    for attempt in range(_ATTEMPTS):
        number = log.last() + 1
        if log.append(number, record):
            return _read(log, kind, number)
        time.sleep(min(0.001 * attempt, 0.05))
    raise ConflictError(f"too many writers attach a {kind} to {digest[:19]} at once; try again")


def attached(store: Store, digest: str, kind: str) -> list[Attachment]:
    """All entries of one kind, oldest first."""
    log = _log(store, digest, kind)
    return [_read(log, kind, number) for number in log.numbers()]


def tags(store: Store, digest: str) -> list[str]:
    """The tags that a revision has now, sorted."""
    return sorted(tags_in({"content": entry.content} for entry in attached(store, digest, "tag")))


def tags_in(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """The tags left by a log's records in order: each adds one, or takes it off."""
    found: set[str] = set()
    for record in records:
        content = record["content"]
        if content.get("removed"):
            found.discard(str(content["tag"]))
        else:
            found.add(str(content["tag"]))
    return found


def metrics(store: Store, digest: str) -> dict[str, float]:
    """The newest value of every metric that an evaluation has stated for a revision, by name."""
    found: dict[str, float] = {}
    for entry in attached(store, digest, "evaluation"):
        found |= entry.content["metrics"]
    return found


def check_tag(tag: str) -> str:
    """Return `tag` if it is well formed (as a name is), else raise InvalidError."""
    return check_name(tag, "tag")


def evaluation(report: Mapping[str, Any], digest: str | None = None) -> dict[str, Any]:
    """An evaluation's content from a report: its numbers by dotted name, under `metrics` or at the top.

    With `digest`, a report that says who answered (`answered_by`, as `loradeck eval` does) must be of that revision
    alone. Raises InvalidError if it states no number or one that is not finite, or is of another revision (reason
    OTHER_REVISION).
    """
    if digest is not None:
        _check_subject(report, digest)
    stated = report.get("metrics", report)
    found = dict(_numbers(stated, "")) if isinstance(stated, Mapping) else {}
    if not found:
        raise InvalidError("the evaluation states no metric: a JSON object with numbers is needed", field="evaluation")
    odd = [name for name, value in found.items() if not math.isfinite(value)]
    if odd:
        raise InvalidError(f"the evaluation's {odd[0]} is not a finite number", field="evaluation")
    about = {key: value for key, value in report.items() if isinstance(value, str)}
    return {"metrics": found, "about": about}


def _check_subject(report: Mapping[str, Any], digest: str) -> None:
    stated = report.get("answered_by")
    answered = [entry for entry in stated if isinstance(entry, Mapping)] if isinstance(stated, list) else []
    for entry in answered:
        if entry.get("digest") not in (None, "", digest):
            raise InvalidError(
                f"the evaluation is of {entry.get('name')}@{entry.get('revision')}, not of this revision: evaluate the "
                "revision that is meant",
                reason="OTHER_REVISION",
                field="evaluation",
            )


def _numbers(content: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, float]]:
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            if "value" in value and isinstance(value["value"], int | float):
                yield name, float(value["value"])
            else:
                yield from _numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def _log(store: Store, digest: str, kind: str) -> NumberedLog:
    models: dict[str, type[AttachmentRecord]] = {"tag": TagRecord, "evaluation": EvaluationRecord}
    model = models.get(kind, AttachmentRecord)
    return NumberedLog(store, layout.attachments(digest, kind), model)


def _read(log: NumberedLog, kind: str, number: int) -> Attachment:
    record = log.read(number)
    return Attachment(kind, number, str(record["who"]), datetime.fromisoformat(record["when"]), dict(record["content"]))
