"""Callers with keys for tests: the files of a server's `access`, and clients that use them."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from loradeck_serve.access.keys import KeyFile, utc_now


class People:
    """Writes callers and keys into a folder. `settings` is what a server gets."""

    def __init__(self, folder: Path, **callers: dict[str, Any]) -> None:
        self.callers = folder / "callers.yaml"
        self.keys = folder / "keys.json"
        self.allow(**callers)
        self._file = KeyFile(self.keys)
        self._file.write(self._file.read())

    @property
    def settings(self) -> dict[str, str]:
        """For `access`."""
        return {"callers": str(self.callers), "keys": str(self.keys)}

    def allow(self, **callers: dict[str, Any]) -> None:
        """Write the grants."""
        self.callers.write_text(yaml.safe_dump({"callers": callers}))

    def key(self, caller: str, expires: datetime | None = None) -> str:
        """A new key."""
        keys, _, key = self._file.read().add(caller, utc_now(), expires)
        self._file.write(keys)
        return key

    def revoke(self, key: str) -> None:
        """End a key."""
        self._file.write(self._file.read().revoke(key.split("_")[1], utc_now()))

    def expired_key(self, caller: str) -> str:
        """A key that was good until a minute ago."""
        return self.key(caller, utc_now() - timedelta(minutes=1))


def with_key(key: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call."""
    return (("authorization", f"Bearer {key}"),)
