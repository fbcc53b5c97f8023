"""A server with a fake engine as a process: `python -m tests.serve.fuzz.server FOLDER` prints where its doors listen.

Its memory is its own, and it runs as `loradeck serve` does, with uvloop. To fuzz it at length:

    python -m tests.serve.fuzz.server /tmp/deck &
    loradeck bench fuzz --server HOST:PORT --admin HOST:PORT --pid PID --adapter classification=clf ...
"""

import asyncio
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

from loradeck_serve.app import Server
from loradeck_serve.config import ServerConfig
from loradeck_serve.logs import set_up_logs
from loradeck_serve.process import loop_factory, settle
from loradeck_serve.sources import Sources
from tests.serve.deck import Deck, fill, make_deck
from tests.serve.fake_engine import FakeEngine

ADAPTERS = ("classification=clf", "short_qa=short", "long_qa=long", "generate=free")


class ForgetfulEngine(FakeEngine):
    """Keeps only the last of what it was asked: memory that grows is to be the server's."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for notes in ("loads", "unloads", "aborted", "settings", "prompts", "priorities"):
            setattr(self, notes, deque(maxlen=100))


def main(folder: Path) -> None:
    """Serve until a signal."""
    set_up_logs("error")
    deck: Deck = make_deck(folder)
    fill(deck)
    config = ServerConfig.model_validate(
        {
            "base": f"dir:{deck.base.folder}", "registry": deck.url, "cache": deck.cache, "slots": 2,
            "host_adapters": 8, "inference": 0, "admin": 0, "metrics": 0, "log_level": "error",
            "limits": {
                "max_tokens": 64, "load_wait_seconds": 1, "default_deadline_seconds": 10, "max_deadline_seconds": 15,
            },
        }
    )  # fmt: skip
    violations: list[FakeEngine] = []

    async def start() -> FakeEngine:
        violations.append(ForgetfulEngine(slots=config.slots, host_adapters=config.host_adapters))
        return violations[-1]

    async def run() -> None:
        server = Server(Sources.find(config), start)

        def ready() -> None:
            settle()
            where = server.addresses
            print(f"ready {os.getpid()} {where.inference} {where.admin}", flush=True)

        await server.run(ready)
        for engine in violations:
            assert not engine.violations, engine.violations[:3]

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
