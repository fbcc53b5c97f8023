"""Protected aliases: a log of rules per alias, and the gate that they make of every move."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from loradeck_registry import layout
from loradeck_registry.aliases.gates import Rule
from loradeck_registry.aliases.log import AliasEntry, AliasLog, Weighted, caller
from loradeck_registry.attachments import metrics
from loradeck_registry.errors import ConflictError, PreconditionError
from loradeck_registry.log import NumberedLog
from loradeck_registry.records import ProtectionRecord
from loradeck_registry.secrets import check_no_secret
from loradeck_registry.stores.store import Store


def protect(store: Store, name: str, alias: str, texts: Sequence[str], *, who: str = "", why: str = "") -> None:
    """Set an alias's rules from now on. Raises InvalidError (BAD_RULE, SECRET)."""
    check_no_secret({"who": who, "why": why}, "protection")
    record = {
        "format": 1,
        "rules": [Rule.parse(text).text for text in texts],
        "who": who or caller(),
        "when": datetime.now(UTC).isoformat(),
        "why": why,
    }
    log = NumberedLog(store, layout.protections(name, alias), ProtectionRecord)
    for attempt in range(100):
        if log.append(log.last() + 1, record):
            return
        time.sleep(min(0.001 * attempt, 0.05))
    raise ConflictError(f"the rules of {name}@{alias} are being changed by too many writers at once; try again")


def rules(store: Store, name: str, alias: str) -> list[str]:
    """An alias's rules now."""
    log = NumberedLog(store, layout.protections(name, alias), ProtectionRecord)
    last = log.last()
    return [str(text) for text in log.read(last)["rules"]] if last else []


def gate(
    store: Store, name: str, alias: str, targets: Sequence[Weighted], more: Sequence[str] = ()
) -> Callable[[AliasEntry | None], None] | None:
    """The check of a move to `targets` by the alias's rules and `more`, None if there are none.

    It raises PreconditionError (GATE_FAILED) that names every rule a target fails.
    """
    parsed = [Rule.parse(text) for text in (*rules(store, name, alias), *more)]
    if not parsed:
        return None

    def check(now: AliasEntry | None) -> None:
        others = {}
        for other in {rule.alias for rule in parsed if rule.alias is not None}:
            entry = now if other == alias else AliasLog(store, name, other).current()
            if entry is not None:
                others[other] = metrics(store, entry.digest)
        held = {target.revision for target in now.targets} if now else set()
        for target in targets:
            if target.revision in held:
                continue
            stated = metrics(store, target.digest)
            failures = [text for rule in parsed if (text := rule.failure(stated, others)) is not None]
            if failures:
                raise PreconditionError(
                    f"{name}@{alias} is protected and {name}@{target.revision} does not pass: {'; '.join(failures)}; "
                    "attach an evaluation that passes (--gate FILE), or change the rules with `registry protect`",
                    reason="GATE_FAILED",
                    metadata={"failures": "; ".join(failures)[:500]},
                )

    return check
