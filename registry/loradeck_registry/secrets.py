"""Secrets do not belong into a registry: what is recorded for ever is looked through before it is written."""

import re
from collections.abc import Iterator, Mapping

from loradeck_registry.errors import InvalidError

_PATTERNS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:ghp|gho|ghs|ghr|github_pat)_[A-Za-z0-9_]{30,}\b",
    "an API key": r"\bsk-[A-Za-z0-9_-]{30,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an address with a password": r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/@]+@",
}
_SECRET = re.compile("|".join(f"(?P<k{number}>{pattern})" for number, pattern in enumerate(_PATTERNS.values())))


def check_no_secret(content: object, what: str) -> None:
    """Raise InvalidError (SECRET) naming the place, and never the value, if a text in `content` looks like a secret.

    `content` is JSON-like; keys are looked at too. Known forms are found, no other.
    """
    for place, text in _texts(content, what):
        if (match := _SECRET.search(text)) is not None:
            kind = list(_PATTERNS)[int(str(match.lastgroup)[1:])]
            raise InvalidError(
                f"{place} holds {kind}: take it out, and change it if it was shown to anybody; what is published stays",
                reason="SECRET",
                field=place,
            )


def _texts(content: object, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield place, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield place, str(key)
            yield from _texts(value, f"{place}.{key}" if len(str(key)) <= 40 else place)
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _texts(value, f"{place}.{number}")
