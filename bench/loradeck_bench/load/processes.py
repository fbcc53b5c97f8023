"""A load test from several client processes: one schedule dealt out among them, one clock, records merged."""

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from loradeck_bench.asking import Asking
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.run import Beside, Sent, alongside, schedule_of, send, warm_up
from loradeck_bench.load.vitals import Vitals
from loradeck_bench.loop import run_fast
from loradeck_registry.errors import InvalidError, LoradeckError, UnavailableError

BATCH_SECONDS = 0.25
"""How often a client hands over its records."""
HEAD_START = 0.3
"""Seconds between the last client being ready and the start of the clock."""
PATIENCE = 10.0
"""Seconds that interrupted clients get to hand over what they have."""


async def send_from(
    asking: Asking,
    plan: LoadPlan,
    count: int,
    on_record: Callable[[RequestRecord], None] = lambda record: None,
    *,
    beside: Beside | None = None,
) -> Sent:
    """Send `plan` from `count` processes, each every `count`-th request, after a warm-up in each.

    The schedule, and who is asked for what, are those of one process. A cancelled run returns what it measured. Raises
    InvalidError if there is less than one request at a time for each, what a client's warm-up raises, and
    UnavailableError if a client process dies.
    """
    if min(plan.concurrency or count, plan.max_in_flight or count) < count:
        raise InvalidError(f"{count} processes need {count} or more requests at a time", field="processes")
    if plan.concurrency is None:
        plan.scheduled()  # raises before processes are started
    clients = [_Client(asking, plan, number, count, on_record) for number in range(count)]
    try:
        try:
            await asyncio.gather(*(client.ready for client in clients))
            begin = time.monotonic() + HEAD_START
            for client in clients:
                client.tell(begin)
            async with alongside(beside, begin):
                await asyncio.gather(*(asyncio.shield(client.done) for client in clients))
        except asyncio.CancelledError:
            for client in clients:
                client.tell("stop")
            await asyncio.wait([client.done for client in clients], timeout=PATIENCE)
    finally:
        for client in clients:
            client.close()
    ended = [client.done.result() for client in clients if client.done.done() and not client.done.exception()]
    reasons = [end.unfinished for end in ended if end.unfinished]
    if len(ended) < count:
        reasons = reasons or [f"interrupted before {plan.duration:g} s"]
    records = sorted((r for client in clients for r in client.records), key=lambda r: (r.end is None, r.end or 0.0))
    return Sent(records, [end.vitals for end in ended], reasons[0] if reasons else None)


@dataclass(frozen=True)
class _End:
    vitals: Vitals
    unfinished: str | None


@dataclass
class _Client:
    """One client process, as the parent sees it."""

    asking: Asking
    plan: LoadPlan
    number: int
    count: int
    on_record: Callable[[RequestRecord], None]
    records: list[RequestRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.done: asyncio.Future[_End] = self._loop.create_future()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_main, args=(theirs, self.asking, self.plan, self.number, self.count), daemon=True
        )
        self._process.start()
        theirs.close()
        self._loop.add_reader(self._pipe.fileno(), self._read)

    def tell(self, what: Any) -> None:
        """Send the moment to start at, or "stop"."""
        if not self.done.done():
            self._pipe.send(what)

    def close(self) -> None:
        """End the process, whatever it does. Idempotent."""
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()
        self._process.join(1.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        for future in (self.ready, self.done):
            if future.done() and not future.cancelled():
                future.exception()  # looked at: asyncio would complain of those that nobody awaited

    def _read(self) -> None:
        try:
            while self._pipe.poll():
                self._take(self._pipe.recv())
        except (EOFError, OSError):
            self._loop.remove_reader(self._pipe.fileno())
            self._fail(UnavailableError(f"client process {self.number + 1} of {self.count} ended before its time"))

    def _take(self, message: Any) -> None:
        if message == "ready":
            if not self.ready.done():
                self.ready.set_result(None)
        elif isinstance(message, LoradeckError):
            self._fail(message)
        elif isinstance(message, _End):
            if not self.done.done():
                self.done.set_result(message)
        else:
            self.records += message
            for record in message:
                self.on_record(record)

    def _fail(self, error: LoradeckError) -> None:
        for future in (self.ready, self.done):
            if not future.done():
                future.set_exception(error)


def _main(pipe: Connection, asking: Asking, plan: LoadPlan, number: int, count: int) -> None:
    # A Ctrl+C of the terminal reaches all processes of it; the parent tells this one when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run_fast(_client(pipe, asking, plan, number, count))
    except LoradeckError as error:
        pipe.send(error)
    except (BrokenPipeError, asyncio.CancelledError):
        pass  # the parent is gone, or has stopped this before it began


async def _client(pipe: Connection, asking: Asking, plan: LoadPlan, number: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[float] = loop.create_future()
    sending = asyncio.current_task()
    assert sending is not None

    def listen() -> None:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            message = "stop"
        if message == "stop":
            loop.remove_reader(pipe.fileno())
            sending.cancel()
        elif not told.done():
            told.set_result(message)

    loop.add_reader(pipe.fileno(), listen)
    waiting: list[RequestRecord] = []

    def hand_over() -> None:
        if waiting:
            pipe.send(waiting[:])
            waiting.clear()

    async def keep_handing_over() -> None:
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            hand_over()

    async with asking.opened() as ask:
        await warm_up(ask, plan)
        planned = schedule_of(plan, number, count)
        pipe.send("ready")
        begin = await told
        handing = asyncio.create_task(keep_handing_over())
        try:
            sent = await send(
                ask, plan, waiting.append, planned=planned, begin=begin, part=number, parts=count
            )  # fmt: skip
        finally:
            handing.cancel()
        hand_over()
        pipe.send(_End(sent.vitals[0], sent.unfinished))
