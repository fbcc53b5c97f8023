"""The audit log: a line of JSON per action of an operator, done or refused. Who, what, which digest, result."""

import json
import logging
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

from loradeck_registry.errors import PreconditionError

_log = logging.getLogger(__name__)


class AuditLog:
    """Writes to a file of its own if one is named, and always to the server's log.

    The file is opened again when logrotate has moved it away; no signal is needed. Each line is written through before
    the caller hears that the action is done. Raises PreconditionError (BAD_AUDIT_LOG) if it cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._handler: WatchedFileHandler | None = None
        if path is None:
            return
        try:
            self._handler = WatchedFileHandler(path, encoding="utf-8")
        except OSError as error:
            raise PreconditionError(
                f"cannot write the audit log {path}: {error.strerror}", reason="BAD_AUDIT_LOG", field="audit_log"
            ) from None

    def record(self, action: str, **facts: object) -> None:
        """Write one action. A line that cannot be written is an error in the server's log, which has the facts too."""
        _log.info("audit", extra={"action": action, **facts})
        if self._handler is None:
            return
        entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "action": action, **facts}
        line = json.dumps(entry, ensure_ascii=False, default=str)
        try:
            self._handler.acquire()
            try:
                self._handler.reopenIfNeeded()
                if (file := self._handler.stream) is not None:
                    file.write(line + "\n")
                    file.flush()
            finally:
                self._handler.release()
        except (OSError, ValueError) as error:
            _log.error("the audit log cannot be written", extra={"reason": str(error)})

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            self._handler.close()
