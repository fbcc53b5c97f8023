"""The audit log: a line of JSON per action of an operator, done or refused. Who, what, which digest, result."""

import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from loradeck_registry.errors import PreconditionError

_log = logging.getLogger(__name__)


class AuditLog:
    """Writes to a file of its own if one is named, and always to the server's log.

    The file is opened again when logrotate has moved it away; no signal is needed. Each line is written through before
    the caller hears that the action is done. Raises PreconditionError (BAD_AUDIT_LOG) if it cannot be opened.

    Not a handler of `logging`: whoever configures that anew, as vLLM does when it is imported, closes all handlers.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._lock = threading.Lock()
        if path is None:
            return
        try:
            self._file = self._open(path)
        except OSError as error:
            raise PreconditionError(
                f"cannot write the audit log {path}: {error.strerror}", reason="BAD_AUDIT_LOG", field="audit_log"
            ) from None

    def record(self, action: str, **facts: object) -> None:
        """Write one action. A line that cannot be written is an error in the server's log, which has the facts too."""
        _log.info("audit", extra={"action": action, **facts})
        if self._path is None:
            return
        entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "action": action, **facts}
        line = json.dumps(entry, ensure_ascii=False, default=str)
        try:
            with self._lock:
                file = self._current(self._path)
                file.write(line + "\n")
                file.flush()
        except (OSError, ValueError) as error:
            _log.error("the audit log cannot be written", extra={"reason": str(error)})

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _current(self, path: Path) -> TextIO:
        """The file that is at `path` now, opened again if it is another one than before."""
        if self._file is not None and not self._file.closed:
            opened = os.fstat(self._file.fileno())
            try:
                there = os.stat(path)
            except FileNotFoundError:
                there = None
            if there is not None and os.path.samestat(opened, there):
                return self._file
            self._file.close()
        self._file = self._open(path)
        return self._file

    @staticmethod
    def _open(path: Path) -> TextIO:
        return path.open("a", encoding="utf-8")
