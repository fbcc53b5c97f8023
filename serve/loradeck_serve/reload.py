"""What changes without a restart: certificates, callers and keys, limits. On SIGHUP, and when a file changes."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loradeck_registry.errors import LoradeckError
from loradeck_serve.access.audit import AuditLog
from loradeck_serve.access.guard import Guard
from loradeck_serve.config import Limits, ServerConfig
from loradeck_serve.grpc.tls import Certificates
from loradeck_serve.live import Live

_log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often files are looked at, and keys for their end."""
FIXED = frozenset({"message_bytes", "load_wait_seconds"})
"""Limits that need a restart."""

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class SettingsSource:
    """Where the settings came from, so that they can be read again. `path` is the file, if there is one."""

    read: Callable[[], ServerConfig]
    path: Path | None = None


class Reloader:
    """Reads again what has changed. What cannot be read, or makes no sense, changes nothing and is logged."""

    def __init__(
        self,
        config: ServerConfig,
        source: SettingsSource | None,
        limits: Live[Limits],
        limits_changed: Callable[[], None],
        guard: Guard,
        certificates: Certificates | None,
        audit: AuditLog,
    ) -> None:
        self._config = config
        self._source = source
        self._limits = limits
        self._limits_changed = limits_changed
        self._guard = guard
        self._certificates = certificates
        self._audit = audit
        settings = (source.path,) if source is not None and source.path is not None else ()
        parts: list[tuple[str, Sequence[Path], Callable[[], None]]] = []
        if source is not None:
            parts.append(("settings", settings, self._settings))
        if guard.paths:
            parts.append(("access", guard.paths, self._access))
        if certificates is not None:
            parts.append(("certificates", certificates.paths, certificates.reload))
        self._parts = parts
        self._seen = {what: _stamp(paths) for what, paths, _ in parts}

    async def run(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for what, paths, reload in self._parts:
                stamp = _stamp(paths)
                if stamp != self._seen[what]:
                    self._seen[what] = stamp
                    self._try(what, reload)
            self._guard.recheck()

    def now(self) -> None:
        """Read everything again, changed or not."""
        for what, paths, reload in self._parts:
            self._seen[what] = _stamp(paths)
            self._try(what, reload)

    @staticmethod
    def _try(what: str, reload: Callable[[], None]) -> None:
        try:
            reload()
        except LoradeckError as error:
            _log.error(f"{what} not read again: the old ones stay", extra={"reason": error.reason, "error": str(error)})
        else:
            _log.info(f"{what} read again")

    def _settings(self) -> None:
        assert self._source is not None
        new = self._source.read()
        old = self._limits.now
        fixed = {name: getattr(old, name) for name in FIXED}
        self._limits.now = new.limits.model_copy(update=fixed)
        self._limits_changed()
        changed = {
            name: getattr(self._limits.now, name)
            for name in Limits.model_fields
            if getattr(self._limits.now, name) != getattr(old, name)
        }
        later = [f"limits.{name}" for name in sorted(FIXED) if getattr(new.limits, name) != fixed[name]]
        for name in ServerConfig.model_fields:
            if name != "limits" and getattr(new, name) != getattr(self._config, name):
                later.append(name)
        if changed:
            _log.info("limits changed", extra={"limits": changed})
        if later:
            _log.warning("changed settings wait for a restart", extra={"settings": later})

    def _access(self) -> None:
        for change in self._guard.reload():
            self._audit.record("Keys", **change)


def _stamp(paths: Sequence[Path]) -> Stamp:
    """What tells a changed file: links are followed, as a mounted secret is one that moves."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
