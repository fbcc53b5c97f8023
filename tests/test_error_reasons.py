"""The table of errors in docs/serving.md: it has every reason that a caller can get, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
REASON = re.compile(r"`([A-Z]{3,}(?:_[A-Z]+)*)`")
SOURCES = ("serve/loradeck_serve", "registry/loradeck_registry", "registry/loradeck_tasks")

NO_CALLER = {
    "the server's start": {
        "BAD_AUDIT_LOG", "BAD_CALLERS", "BAD_CERTIFICATE", "BAD_CONFIG", "BAD_KEYS", "BASE_NOT_FOUND", "ENGINE_MISSING",
        "ENGINE_START", "ENGINE_VERSION", "HUB_PACKAGE_MISSING", "HUB_UNREACHABLE", "NO_OPENTELEMETRY",
        "NO_PUBLIC_KEY", "PORT_IN_USE", "REGISTRY_FORMAT",
    },
    "a background task of the server that ended, which ends the server": {"BACKGROUND_TASK"},
    "votes between servers": {"NO_ADAPTERS"},
    "what residency makes sure of before it asks the engine": {"ENGINE_FULL", "NOT_LOADED", "NO_SLOTS"},
    "loradeck keys": {"KEY_ENDED", "KEY_NOT_FOUND", "LOCKED", "NOT_WRITABLE"},
    "loradeck registry and train: pushes, imports, exports, rules, rollbacks, rows of data": {
        "BAD_DATA", "BAD_PATH", "BAD_RULE", "FILE_CHANGED", "KIND_CHANGED", "MISSING_PACKAGE", "NOT_EMPTY",
        "NO_PREVIOUS_REVISION", "PICKLE", "RESERVE_UNSUPPORTED",
    },
    "kinds whose errors at the doors all have a reason of their own": {
        "DENIED", "EXHAUSTED", "PRECONDITION", "UNAUTHENTICATED", "UNIMPLEMENTED",
    },
}  # fmt: skip
"""Reasons that no caller of the doors gets, by where they stay."""


def _texts(tree: ast.AST) -> Iterator[str]:
    """Every text that code gives an error as its reason."""
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call):
            values = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            if isinstance(node.func, ast.Name) and node.func.id in ("refuse", "_read"):
                values += node.args
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any("reason" in ast.unparse(target) for target in targets):
                values = [node.value]
        for value in values:
            # Both of `"A" if ... else "B"`.
            found = (part.value for part in ast.walk(value) if isinstance(part, ast.Constant))
            yield from (text for text in found if isinstance(text, str) and REASON.fullmatch(f"`{text}`"))


def _raised() -> dict[str, str]:
    """Each reason, and a file that gives it."""
    found = {}
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found.update(dict.fromkeys(_texts(tree), path.relative_to(ROOT).as_posix()))
    return found


def _table(page: str, section: str) -> set[str]:
    """The reasons in the tables of a section."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    return {reason for line in body.splitlines() if line.startswith("|") for reason in REASON.findall(line)}


RAISED = _raised()
ERRORS = _table("serving.md", "Errors")
CHECKS = _table("registry.md", "What an adapter must be")
INSIDE = set().union(*NO_CALLER.values())


def test_every_reason_that_a_caller_can_get_is_documented() -> None:
    assert len(RAISED) > 100
    missing = {reason: path for reason, path in RAISED.items() if reason not in ERRORS | CHECKS | INSIDE}
    assert not missing, "add it to `Errors` of docs/serving.md, or to NO_CALLER here"


def test_every_documented_reason_exists() -> None:
    code = "".join(path.read_text(encoding="utf-8") for source in SOURCES for path in (ROOT / source).rglob("*.py"))
    # f"KEY_{state}" makes several.
    made = tuple(re.findall(r'reason=f"([A-Z]+_){', code))
    there = {reason for reason in ERRORS | CHECKS | INSIDE if f'"{reason}"' in code or reason.startswith(made)}
    assert not (ERRORS | CHECKS | INSIDE) - there


def test_no_documented_reason_is_said_to_reach_nobody() -> None:
    assert not INSIDE & (ERRORS | CHECKS)
