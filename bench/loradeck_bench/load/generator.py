"""Sends requests: an open loop on a fixed schedule, or a closed loop of workers that wait for their answers."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from loradeck_bench.load.record import OK, RequestRecord
from loradeck_registry.errors import Kind, LoradeckError

PAUSE = 0.1
"""Seconds that a worker of a closed loop waits after an unreachable server, so that it does not spin."""
GONE_SECONDS = 10.0
"""A server that could not be reached for so long, and answered nothing meanwhile, is gone: nothing more is sent."""

Ask = Callable[[RequestRecord, Callable[[], float]], Awaitable[None]]
"""Sends one request and fills in the record (all but `intended`, `end`, `status`, `reason`); the second argument is the
run's clock. Raises LoradeckError."""


@dataclass
class LoadRun:
    """A load test while it runs and after. `records` grows as requests end; a cancelled run keeps them."""

    ask: Ask
    on_record: Callable[[RequestRecord], None] = lambda record: None
    records: list[RequestRecord] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    """When the clock of the run reads 0, on the clock of `time.monotonic`."""
    stopping: bool = False
    gone_after: float | None = None
    """When the server was last there, if it went away for good; else None."""
    _away_since: float | None = None

    def stop(self) -> None:
        """Send nothing more; what is under way comes to its end."""
        self.stopping = True

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    async def open_loop(
        self, planned: Sequence[RequestRecord], *, max_in_flight: int | None = None, begin: float | None = None
    ) -> None:
        """Send every planned request at its intended time, whatever the server does.

        With `max_in_flight` at most that many are under way, as in a client with a limited pool: the others wait, and
        their waiting counts into latency and is shown as delay. The clock starts at `begin` (now, if None), which
        clients in several processes share. Returns when all have ended.
        """
        self.started = time.monotonic() if begin is None else begin
        places = asyncio.Semaphore(max_in_flight) if max_in_flight else contextlib.nullcontext()
        running: set[asyncio.Task[None]] = set()
        try:
            for record in planned:
                await self._until(record.intended)
                if self.stopping:
                    break
                task = asyncio.create_task(self._one(record, places))
                running.add(task)
                task.add_done_callback(running.discard)
            while running:
                await asyncio.gather(*running)
        finally:
            await _cancel(running)

    async def _until(self, moment: float) -> None:
        # Again and again, since uvloop rounds to milliseconds: sent early, a request would look faster than it was.
        while True:
            wait = moment - self.now()
            if wait <= 0:
                return
            await asyncio.sleep(wait)

    async def closed_loop(
        self, planned: Iterator[RequestRecord], *, concurrency: int, duration: float, begin: float | None = None
    ) -> None:
        """Keep `concurrency` requests under way until `duration` has passed or `planned` ends; then let them end.
        `begin` as in `open_loop`."""
        self.started = time.monotonic() if begin is None else begin
        await self._until(0.0)
        workers = {asyncio.create_task(self._worker(planned, duration)) for _ in range(concurrency)}
        try:
            await asyncio.gather(*workers)
        finally:
            await _cancel(workers)

    async def _worker(self, planned: Iterator[RequestRecord], duration: float) -> None:
        while self.now() < duration and not self.stopping:
            record = next(planned, None)
            if record is None:
                return
            record.intended = self.now()
            await self._one(record, contextlib.nullcontext())
            if record.status == Kind.UNAVAILABLE.value:
                await asyncio.sleep(PAUSE)

    async def _one(self, record: RequestRecord, places: contextlib.AbstractAsyncContextManager[object]) -> None:
        try:
            async with places:
                record.sent = self.now()
                await self.ask(record, self.now)
            record.status = OK
        except LoradeckError as error:
            record.status, record.reason = error.kind.value, error.reason
        except Exception as error:  # a defect of this client: counted, never lost, and the run goes on
            record.status, record.reason = Kind.INTERNAL.value, f"CLIENT_{type(error).__name__}"
        finally:
            if not record.cut_off:
                record.end = self.now()
            self.records.append(record)
            self._notice(record)
            self.on_record(record)

    def _notice(self, record: RequestRecord) -> None:
        """Stop once the server has been away for GONE_SECONDS; a restart meanwhile is part of the measurement."""
        if record.status != Kind.UNAVAILABLE.value:
            if record.ok:
                self._away_since = None
        elif self._away_since is None:
            self._away_since = self.now()
        elif self.now() - self._away_since > GONE_SECONDS:
            self.gone_after = self._away_since
            self.stop()


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
