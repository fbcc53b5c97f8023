"""Results back to the registry: the metrics of an evaluation become an attachment of the revision that answered."""

import json
from collections.abc import Mapping
from typing import Any

from loradeck_registry.attachments import Attachment, evaluation
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry
from loradeck_registry.revision import Revision

ABOUT = ("task", "adapter", "source", "data_digest", "judge")
"""What of a result says how its figures came about."""


def stated_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a result as gates see them: each by its name, and the bounds of its interval as `<name>.low` and
    `<name>.high`, so that a gate can ask for a bound (`macro_f1.low >= 0.8`)."""
    stated: dict[str, float] = {}
    for name in report["methods"]:
        stated[name] = float(report[name])
        if name in report["intervals"]:
            stated[f"{name}.low"], stated[f"{name}.high"] = report["intervals"][name]
    return stated | {key: float(report[key]) for key in ("rows", "answered", "failed") if key in report}


def attach(registry: Registry, report: Mapping[str, Any], who: str = "") -> tuple[Revision, Attachment]:
    """Attach a result to the one revision that gave all its answers.

    Raises PreconditionError if the run was broken off, if several revisions answered, or a base from a plain folder,
    which no registry knows.
    """
    if report.get("unfinished"):
        raise PreconditionError(
            "an evaluation that was broken off is not attached: its figures are of some rows only", reason="UNFINISHED"
        )
    answered = report["answered_by"]
    if len(answered) != 1:
        told = ", ".join(f"{entry['name']}@{entry['revision']}" for entry in answered)
        raise PreconditionError(
            f"{len(answered)} revisions answered ({told}): an alias moved, or has weights; evaluate one revision",
            reason="SEVERAL_REVISIONS",
        )
    entry = answered[0]
    if not entry["digest"]:
        raise PreconditionError(
            f"{entry['name']} is no revision of a registry: there is nothing to attach to", reason="NO_REVISION"
        )
    revision = registry.resolve(f"{entry['name']}@{entry['digest']}")
    about = {key: str(report[key]) for key in ABOUT if report.get(key)} | {"methods": json.dumps(report["methods"])}
    content = evaluation({**about, "metrics": stated_metrics(report), "answered_by": answered}, revision.digest)
    return revision, registry.attach(revision, "evaluation", content, who=who)
