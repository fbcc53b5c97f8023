"""The guard at the doors: knows who calls, and ends the calls of whom it no longer knows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from loradeck_registry.errors import LoradeckError
from loradeck_serve.access.callers import Callers
from loradeck_serve.access.identity import AUTHORIZATION, Identities, Identity
from loradeck_serve.access.keys import Keys
from loradeck_serve.config import AccessFiles

Cut = Callable[[LoradeckError], None]
"""Ends a running call with an error."""


class Guard:
    """Tells identities. Without files everybody is who he says he is, and may do everything."""

    def __init__(self, files: AccessFiles | None) -> None:
        """Reads the files. Raises NotFoundError and InvalidError with one line."""
        self._files = files
        self._identities = self._read()
        self._running: dict[Cut, Identity] = {}

    @property
    def asks(self) -> bool:
        """Whether credentials are asked for."""
        return self._identities is not None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that say who may do what."""
        return () if self._files is None else tuple(p for p in (self._files.callers, self._files.keys) if p)

    def identify(
        self, claimed: str, metadata: Mapping[str, str | bytes], certificate: Callable[[], frozenset[str]]
    ) -> Identity:
        """Who calls. `claimed` counts only where no credentials are asked for.

        Raises UnauthenticatedError.
        """
        if self._identities is None:
            return Identity(claimed)
        authorization = metadata.get(AUTHORIZATION)
        return self._identities.identify(str(authorization) if authorization is not None else None, certificate)

    @contextmanager
    def watching(self, identity: Identity, cut: Cut) -> Iterator[None]:
        """While a call runs: `cut` is called once if its caller loses its key or its grants meanwhile."""
        if self._identities is None:
            yield
            return
        self._running[cut] = identity
        try:
            yield
        finally:
            self._running.pop(cut, None)

    def reload(self) -> list[dict[str, object]]:
        """Read the files again. Returns the keys that came, went or changed, for the audit log.

        Raises as the constructor does, and then all stays as it was.
        """
        before, after = self._identities, self._read()
        self._identities = after
        self.recheck()
        if before is None or after is None:
            return []
        changes: list[dict[str, object]] = []
        for key in sorted(before.records.keys() | after.records.keys()):
            old, new = before.records.get(key), after.records.get(key)
            if old != new:
                what = "removed" if new is None else "added" if old is None else "changed"
                if new is not None and new.revoked and not (old and old.revoked):
                    what = "revoked"
                record = new or old
                changes.append({"change": what, "key": key, "caller": record.caller if record else ""})
        return changes

    def recheck(self) -> None:
        """End the calls whose key has been revoked or has expired, or whose caller is gone."""
        identities = self._identities
        if identities is None:
            return
        for cut, identity in list(self._running.items()):
            try:
                identities.check(identity)
            except LoradeckError as error:
                del self._running[cut]
                cut(error)

    def _read(self) -> Identities | None:
        if self._files is None:
            return None
        keys = Keys.read(self._files.keys) if self._files.keys is not None else Keys()
        return Identities(Callers.read(self._files.callers), keys)
