"""One finding of the doctor, and how a subject's findings are gathered without one failure hiding the rest."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from loradeck_registry.errors import LoradeckError

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do if it is not well."""

    subject: str
    name: str
    state: State
    found: str
    fix: str = ""


Result = tuple[State, str, str] | tuple[State, str]
"""State, what was found, what to do."""


def examine(subject: str, checks: Iterable[tuple[str, Callable[[], Result]]]) -> Iterator[Check]:
    """Run each check. One that raises is a finding: the error's line if it is one of ours, else its type and text."""
    for name, look in checks:
        try:
            state, found, *fix = look()
        except LoradeckError as error:
            # Our errors say in their one line what to do.
            yield Check(subject, name, "failed", error.message)
            continue
        except OSError as error:
            yield Check(subject, name, "failed", f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
            continue
        yield Check(subject, name, state, found, fix[0] if fix else "")


def gib(size: float) -> str:
    """Bytes as GiB."""
    return f"{size / 2**30:.1f} GiB"
