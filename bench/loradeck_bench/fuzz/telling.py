"""What an error must not say: traces, types of exceptions, addresses of objects, places of the machine."""

import re

_INNER = re.compile(
    r"Traceback|File \"|\.py\b|\bat 0x[0-9a-f]{6,}|<class '"
    r"|\b(?:google\.protobuf|grpc|pydantic|vllm|torch|asyncio)\.[a-z_]+\b"
    r"|\b[A-Z][A-Za-z]+(?:Error|Exception)\b|Unexpected <|For further information visit|site-packages"
)
_PLACES = re.compile(r"(?<![\w.])/(?:home|root|usr|tmp|var|opt|srv|etc|mnt|data|work|workspace)/[\w./-]+")


def inner_text(said: str, sent: str = "") -> str | None:
    """What of the inside `said` shows; None if nothing. What was `sent` may come back."""
    for pattern in (_INNER, _PLACES):
        for match in pattern.finditer(said):
            if match[0] not in sent:
                return match[0]
    return None
