"""The real engine behind doors with TLS, keys and grants: who may not is told so, and who may is answered meanwhile."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from loradeck_client import (
    AdminClient,
    AsyncAdminClient,
    AsyncClient,
    Client,
    DeadlineError,
    DeniedError,
    LoradeckError,
    Sampling,
)
from tests.e2e.conftest import Served, served
from tests.e2e.test_server_lifecycle import gone
from tests.serve.access.test_transcript import check_documented
from tests.serve.access.transcript import ONCE, Guarded, transcript
from tests.serve.deck import Deck

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONTEXT = "The bank opened a branch and the city built a network."
GREEDY = Sampling(temperature=0, max_tokens=16)


@dataclass(frozen=True)
class Secured:
    """A server and who may do what there."""

    server: Served
    guarded: Guarded


@pytest.fixture(scope="module")
def secured(served_deck: Deck, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A server of this module's own; the last test kills it."""
    folder = tmp_path_factory.mktemp("secured")
    guarded = Guarded(folder)
    with served(served_deck, folder / "server", settings=guarded.write(folder / "serve.yaml")) as server:
        yield Secured(server, guarded)


async def test_refused_callers_learn_why_while_a_good_one_gets_the_right_tokens(
    secured: Secured, server: Served
) -> None:
    async with AsyncClient(server.inference, timeout=60) as plain:
        golden = await plain.answer_long("What?", context=CONTEXT, adapter="long", sampling=GREEDY).result()
    replies: list[str] = []
    access = secured.guarded.access("steady")
    async with AsyncClient(secured.server.inference, access=access, retry=ONCE, timeout=60) as client:

        async def steady() -> None:
            while True:
                call = client.answer_long("What?", context=CONTEXT, adapter="long", sampling=GREEDY)
                replies.append((await call.result()).text)

        answering = asyncio.create_task(steady())

        async def answered(count: int) -> None:
            async with asyncio.timeout(120):
                while len(replies) < count and not answering.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        await answered(1)
        lines = await transcript(secured.server.inference, secured.server.admin, secured.guarded)
        await answered(len(replies) + 10)
        assert not answering.done(), "the good caller was refused"
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
    check_documented(lines)
    assert set(replies) == {golden.text}


async def struck_in_the_middle(client: AsyncClient) -> bool:
    """Whether one of ever longer deadlines ended an answer that had begun: which one does depends on the machine."""
    long = Sampling(temperature=0, max_tokens=400)
    for seconds in (0.03, 0.06, 0.12, 0.25, 0.5, 1, 2, 4, 8):
        begun = False
        try:
            async for _ in client.answer_long("What?", context=CONTEXT, adapter="long", sampling=long, timeout=seconds):
                begun = True
        except DeadlineError:
            if begun:
                return True
    return False


async def test_an_expired_deadline_ends_the_request_in_the_engine(secured: Secured) -> None:
    guarded, where = secured.guarded, secured.server
    async with (
        AsyncClient(where.inference, access=guarded.access("steady"), retry=ONCE, timeout=60) as client,
        AsyncAdminClient(where.admin, access=guarded.access("ops"), retry=ONCE) as operator,
    ):
        await operator.load("long")
        # The deadline counts from a connection that stands.
        await client.answer_long("What?", context=CONTEXT, adapter="long", sampling=Sampling(max_tokens=1)).result()
        assert await struck_in_the_middle(client), "no deadline struck an answer that had begun"
        async with asyncio.timeout(60):
            while any(adapter.running_requests for adapter in await operator.list()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def test_what_operators_did_and_were_refused_is_in_the_audit_log(secured: Secured) -> None:
    guarded, where = secured.guarded, secured.server
    with AdminClient(where.admin, access=guarded.access("web"), retry=ONCE) as web, pytest.raises(DeniedError):
        web.load("clf")
    with AdminClient(where.admin, access=guarded.access("ops"), retry=ONCE) as operator:
        operator.load("clf")
    lines = [json.loads(line) for line in guarded.audit_log.read_text().splitlines()]
    # Keys that come and go are lines too, without a caller or a result.
    calls = [line for line in lines if "result" in line]
    refused = next(line for line in calls if line["result"] == "PERMISSION_DENIED")
    assert (refused["action"], refused["who"], refused["proof"]) == ("LoadAdapter", "web", "key")
    assert any((line["action"], line["who"], line["result"]) == ("LoadAdapter", "ops", "OK") for line in calls)
    assert not any("ldk_" in json.dumps(line) for line in lines)


def test_killed_server_leaves_no_process(secured: Secured) -> None:
    """Last on purpose: it ends the server."""
    server = secured.server
    family: list[psutil.Process] = server.family()
    assert family
    client = Client(server.inference, retry=ONCE, access=secured.guarded.access("steady"))
    failures: list[LoradeckError] = []

    def read() -> None:
        try:
            client.answer_long("What?", context=CONTEXT, adapter="long", sampling=Sampling(max_tokens=400)).result()
        except LoradeckError as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.5)
    server.process.kill()
    server.process.wait()
    thread.join(30)
    assert not gone(family), "processes of the engine outlived the server"
    client.close()
