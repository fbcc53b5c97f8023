"""Where the cache is and how large it may grow, from the environment."""

import os
import re
from pathlib import Path

from loradeck_registry.errors import InvalidError

LIMIT = 100 * 10**9
"""Bytes, unless the environment says otherwise."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def default_folder() -> Path:
    """$LORADECK_CACHE, else loradeck in the user's cache folder."""
    if path := os.environ.get("LORADECK_CACHE"):
        return Path(path).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser().absolute() / "loradeck"


def default_limit() -> int:
    """$LORADECK_CACHE_LIMIT in bytes (`20GB`, `500 MB`, `1000000`), else 100 GB. Raises InvalidError."""
    text = os.environ.get("LORADECK_CACHE_LIMIT", "")
    if not text:
        return LIMIT
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)b?\s*", text.lower())
    if match is None:
        raise InvalidError(f"bad LORADECK_CACHE_LIMIT {text[:40]!r}: write bytes as 20GB or 500MB", field="cache")
    return int(float(match[1]) * _UNITS[match[2]])
