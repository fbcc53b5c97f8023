"""Writes results: JSON to a file or standard output, and JSON lines as they come."""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from loradeck_registry.errors import PreconditionError


def write_json(result: Mapping[str, Any], target: str) -> None:
    """Write `result` to the file `target`, or to standard output for `-`. Raises PreconditionError if it cannot."""
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    with open_for_writing(target) as out:
        out.write(text)


@contextmanager
def open_for_writing(target: str) -> Iterator[TextIO]:
    """The file `target`, its folder made if need be. Raises PreconditionError if it cannot be written."""
    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = path.open("w", encoding="utf-8")
    except OSError as error:
        raise PreconditionError(f"cannot write {target}: {error.strerror}", reason="NOT_WRITABLE") from None
    with out:
        yield out


def ensure_writable(*targets: str | None) -> None:
    """Raise PreconditionError now, before a long run, if a result could not be written at its end. Leaves no file."""
    for target in targets:
        if target not in (None, "-"):
            path = Path(str(target))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists():
                    path.open("a").close()
                else:
                    # Not the path itself: processes of one launch look at it at the same time.
                    tempfile.TemporaryFile(dir=path.parent).close()
            except OSError as error:
                raise PreconditionError(f"cannot write {target}: {error.strerror}", reason="NOT_WRITABLE") from None
