"""What callers get who may not: `python -m tests.serve.access.transcript` prints who, what, status, reason and message.

The doors, the keys and the client are the real ones; the engine answers without a model.
"""

import asyncio
import logging
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from loradeck_client import Access, AsyncAdminClient, AsyncClient, RetryPolicy
from loradeck_registry.errors import LoradeckError
from loradeck_serve.grpc.status import _CODES
from tests.serve.access.people import People
from tests.serve.conftest import running
from tests.serve.deck import Deck, fill, make_deck

ONCE = RetryPolicy(attempts=1)
WIDTHS = (31, 18, 20, 19)

Case = tuple[str, str, Callable[[], Awaitable[object]]]


async def transcript(deck: Deck, folder: Path) -> list[str]:
    """One line per case."""
    people = People(
        folder,
        web={"adapters": ["clf"], "max_tokens": 64},
        flood={"adapters": ["*"], "requests_per_second": 1},
        busy={"adapters": ["*"], "tokens_per_minute": 60},
    )
    web, gone, flood, busy = (people.key(name) for name in ("web", "web", "flood", "busy"))
    expired, stranger = people.expired_key("web"), people.key("stranger")
    people.revoke(gone)
    settings = {"access": people.settings, "limits": {"quota_wait_seconds": 0}}
    async with running(deck, {"step_seconds": 0.02}, settings) as server:
        address, admin = (str(where) for where in (server.server.addresses.inference, server.server.addresses.admin))

        async def classify(key: str, adapter: str = "clf", timeout: float = 10) -> object:  # noqa: ASYNC109
            access = Access(api_key=key)
            async with AsyncClient(address, access=access, retry=ONCE, timeout=timeout) as client:
                return (await client.classify("The bank opened a branch.", adapter=adapter)).label

        async def load() -> object:
            async with AsyncAdminClient(admin, access=Access(api_key=web), retry=ONCE) as client:
                return await client.load("clf")

        async def spend() -> object:
            async with AsyncClient(address, access=Access(api_key=busy), retry=ONCE) as client:
                while True:
                    await client.answer_short("q", context="c", adapter="short")

        async def hurry() -> object:
            while True:
                await classify(flood)

        cases: tuple[Case, ...] = (
            ("web", "Classify clf", lambda: classify(web)),
            ("web, no grant for it", "Classify short", lambda: classify(web, "short")),
            ("web, no such adapter", "Classify absent", lambda: classify(web, "absent")),
            ("web, no grant for the method", "LoadAdapter clf", load),
            ("a caller without any grant", "Classify clf", lambda: classify(stranger)),
            ("nobody, without a key", "Classify clf", lambda: classify("")),
            ("somebody, with a made-up key", "Classify clf", lambda: classify(web[:-6] + "abcdef")),
            ("web, with a revoked key", "Classify clf", lambda: classify(gone)),
            ("web, with an expired key", "Classify clf", lambda: classify(expired)),
            ("web, with an expired deadline", "Classify clf", lambda: classify(web, timeout=0.001)),
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


async def _main(folder: Path) -> None:
    deck = make_deck(folder / "deck")
    fill(deck)
    print("\n".join(await transcript(deck, folder)))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(_main(Path(made)))
    sys.exit(0)
