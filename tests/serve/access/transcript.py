"""What callers get who may not: `python -m tests.serve.access.transcript` prints who, what, status, reason and message.

That is `loradeck serve` on a small base, with TLS, keys and grants. The quick test asks the same of doors whose engine
answers without a model.
"""

import asyncio
import logging
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml

from loradeck_client import Access, AsyncAdminClient, AsyncClient, RetryPolicy
from loradeck_registry.errors import LoradeckError
from loradeck_serve.grpc.status import _CODES
from tests.serve.access.certificates import Authority
from tests.serve.access.people import People
from tests.serve.deck import fill, make_deck

ONCE = RetryPolicy(attempts=1)
WIDTHS = (34, 18, 20, 19)
RELOAD_SECONDS = 10.0

Case = tuple[str, str, Callable[[], Awaitable[object]]]


class Guarded:
    """The files of a server that asks everybody who he is: a certificate, callers with grants, and their keys."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        certificate, private = authority.server()
        self.people = People(
            folder,
            web={"adapters": ["clf"], "max_tokens": 64},
            flood={"adapters": ["*"], "requests_per_second": 1},
            busy={"adapters": ["*"], "tokens_per_minute": 60},
            steady={"adapters": ["long"]},
            ops={"adapters": ["*"], "rpcs": ["admin"]},
        )
        self._ca = authority.file
        self._keys = {name: self.people.key(name) for name in ("web", "flood", "busy", "steady", "ops", "stranger")}
        self._keys |= {"second": self.people.key("web"), "expired": self.people.expired_key("web"), "nobody": ""}
        self._keys["made up"] = self._keys["web"][:-6] + "abcdef"
        self.audit_log = folder / "audit.jsonl"
        self.settings: dict[str, Any] = {
            "tls": {"certificate": str(certificate), "key": str(private)},
            "access": self.people.settings,
            "audit_log": str(self.audit_log),
            "limits": {"quota_wait_seconds": 0},
        }

    def access(self, who: str) -> Access:
        """Credentials of one of the callers, or of one of the keys that are good for nothing."""
        return Access(ca=self._ca, api_key=self._keys[who])

    def revoke(self, who: str) -> None:
        """End a key while the server runs."""
        self.people.revoke(self._keys[who])

    def write(self, path: Path) -> Path:
        """The settings as a file."""
        path.write_text(yaml.safe_dump(self.settings))
        return path


async def transcript(address: str, admin: str, guarded: Guarded) -> list[str]:
    """One line per case. Ends the second key of `web` on the way."""

    async def classify(who: str, adapter: str = "clf", timeout: float = 30) -> object:  # noqa: ASYNC109
        async with AsyncClient(address, access=guarded.access(who), retry=ONCE, timeout=timeout) as client:
            return (await client.classify("The bank opened a branch.", adapter=adapter)).label

    async def load() -> object:
        async with AsyncAdminClient(admin, access=guarded.access("web"), retry=ONCE) as client:
            return await client.load("clf")

    async def spend() -> object:
        async with AsyncClient(address, access=guarded.access("busy"), retry=ONCE) as client:
            while True:
                await client.answer_short("q", context="c", adapter="short")

    async def hurry() -> object:
        async with AsyncClient(address, access=guarded.access("flood"), retry=ONCE) as client:
            while True:
                await client.classify("The bank opened a branch.", adapter="clf")

    async def revoked() -> object:
        guarded.revoke("second")
        until = time.monotonic() + RELOAD_SECONDS
        while time.monotonic() < until:
            await classify("second")
            await asyncio.sleep(0.1)
        return None

    cases: tuple[Case, ...] = (
        ("web", "Classify clf", lambda: classify("web")),
        ("web, no grant for it", "Classify short", lambda: classify("web", "short")),
        ("web, no such adapter", "Classify absent", lambda: classify("web", "absent")),
        ("web, no grant for the method", "LoadAdapter clf", load),
        ("a caller without any grant", "Classify clf", lambda: classify("stranger")),
        ("nobody, without a key", "Classify clf", lambda: classify("nobody")),
        ("somebody, with a made-up key", "Classify clf", lambda: classify("made up")),
        ("web, with a second key", "Classify clf", lambda: classify("second")),
        ("web, that key revoked meanwhile", "Classify clf", revoked),
        ("web, with an expired key", "Classify clf", lambda: classify("expired")),
        ("web, with an expired deadline", "Classify clf", lambda: classify("web", timeout=0.001)),
        ("flood, over its rate", "Classify clf", hurry),
        ("busy, over its tokens", "AnswerShort short", spend),
    )
    return [await _line(*case) for case in cases]


async def _line(who: str, what: str, ask: Callable[[], Awaitable[object]]) -> str:
    try:
        await ask()
        status, reason, message = "OK", "", "answered"
    except LoradeckError as error:
        from google.rpc import code_pb2

        status, reason = code_pb2.Code.Name(_CODES[error.kind]), error.reason
        message = re.sub(r"in \d+\.\d s", "in N s", error.message)
        if status == "DEADLINE_EXCEEDED":
            # In the words of whoever notices first: the server, or gRPC at the caller.
            message = ""
    parts = [text.ljust(width) for text, width in zip((who, what, status, reason), WIDTHS, strict=True)]
    return "".join((*parts, message)).rstrip()


def _main(folder: Path) -> None:
    from tests.e2e.conftest import served

    deck = make_deck(folder / "deck")
    fill(deck)
    guarded = Guarded(folder)
    with served(deck, folder / "server", settings=guarded.write(folder / "serve.yaml")) as server:
        print("\n".join(asyncio.run(transcript(server.inference, server.admin, guarded))))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as made:
        _main(Path(made))
    sys.exit(0)
