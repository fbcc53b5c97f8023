"""The callers of a soak: one that does nothing wrong, one that floods, and those that break off, come late, or ask for
what cannot be served."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from loradeck_bench.asking import Asker
from loradeck_bench.load.record import OK, RequestRecord
from loradeck_bench.serving.prompts import prompt_subjects
from loradeck_bench.soak.cast import ALIAS, Cast, Script
from loradeck_bench.soak.ledger import CANCELLED, HANG, Ledger, Part
from loradeck_bench.soak.plan import SoakPlan
from loradeck_client import AsyncClient, LoradeckError, RetryPolicy, Sampling
from loradeck_client.aio import AsyncTextStream

_SECONDS = 60.0
_FLOOD_SECONDS = 3.0
_EXPIRE_SECONDS = (0.005, 0.02, 0.05, 0.1)
"""Before, in, and after the queue and the prefill."""
_HANG_SECONDS = 10.0
"""So long after its deadline a request has hung."""

Send = Callable[[RequestRecord], Awaitable[None]]


@dataclass
class Traffic:
    """All callers together, each on a connection and under a name of its own."""

    address: str
    cast: Cast
    script: Script
    plan: SoakPlan
    now: Callable[[], float]
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def run(self, seconds: float, ledger: Ledger | None) -> None:
        """Load for so long; into `ledger` unless it is only to warm up."""
        plan, cast = self.plan, self.cast
        until = self.now() + seconds
        async with AsyncExitStack() as stack:
            clients = {
                part: await stack.enter_async_context(
                    AsyncClient(self.address, retry=RetryPolicy(attempts=1), caller=part)
                )
                for part in ("steady", "flood", "cancelled", "expired", "bad")
            }
            good = prompt_subjects([*cast.steady, f"{cast.flooded}@{ALIAS}"], self.script.prompts, plan.tokens)
            bad = prompt_subjects(list(cast.bad), self.script.prompts, plan.tokens)
            steady = Asker(clients["steady"], good, _SECONDS)
            flood = Asker(clients["flood"], good, _FLOOD_SECONDS)
            refused = Asker(clients["bad"], bad, _SECONDS)
            lengthy = ("", f"{cast.names[-2]}@{ALIAS}")

            def ask(asker: Asker) -> Send:
                return lambda record: asker(record, self.now)

            callers: list[tuple[Part, float, tuple[str, ...], Send, float]] = [
                ("steady", plan.steady, cast.steady, ask(steady), _SECONDS),
                ("flood", plan.flood, (f"{cast.flooded}@{ALIAS}",), ask(flood), _FLOOD_SECONDS),
                ("cancelled", plan.cancelled, lengthy, lambda r: self._cancel(clients["cancelled"], r), _SECONDS),
                ("expired", plan.expired, lengthy, lambda r: self._expire(clients["expired"], r), 1.0),
                ("bad", plan.bad, tuple(cast.bad), ask(refused), _SECONDS),
            ]
            await asyncio.gather(*(self._call(until, ledger, *caller) for caller in callers))

    async def _call(
        self, until: float, ledger: Ledger | None, part: Part, rate: float, references: tuple[str, ...], send: Send,
        deadline: float,
    ) -> None:  # fmt: skip
        """One caller: an open loop, whatever the server does."""
        start = self.now()
        running: set[asyncio.Task[None]] = set()
        for number in itertools.count():
            intended = start + number / rate
            if intended >= until:
                break
            await asyncio.sleep(max(0.0, intended - self.now()))
            row = number // len(references) % len(self.script.prompts)
            reference = references[number % len(references)]
            record = RequestRecord(next(self.numbers), reference, "generate", row, intended)
            task = asyncio.create_task(self._one(part, record, send, deadline, ledger))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _one(self, part: Part, record: RequestRecord, send: Send, deadline: float, ledger: Ledger | None) -> None:
        record.sent = self.now()
        try:
            async with asyncio.timeout(deadline + _HANG_SECONDS):
                await send(record)
            if record.status == "unfinished":
                record.status = OK
        except LoradeckError as error:
            record.status, record.reason = error.kind.value, error.reason
        except TimeoutError:
            record.status = HANG
        record.end = self.now()
        if ledger is not None:
            ledger.add(part, record)

    async def _cancel(self, client: AsyncClient, record: RequestRecord) -> None:
        """Break a stream off after its first chunks."""
        stream = self._stream(client, record, _SECONDS)
        chunks = 1 + record.index % 5
        async with stream:
            async for chunk in stream:
                record.text += chunk.text
                chunks -= 1
                if not chunks:
                    record.status = CANCELLED
                    return

    async def _expire(self, client: AsyncClient, record: RequestRecord) -> None:
        """A request whose deadline leaves it no time."""
        stream = self._stream(client, record, _EXPIRE_SECONDS[record.index % len(_EXPIRE_SECONDS)])
        async with stream:
            async for chunk in stream:
                record.text += chunk.text

    def _stream(self, client: AsyncClient, record: RequestRecord, seconds: float) -> AsyncTextStream:
        sampling = Sampling(temperature=0.0, max_tokens=self.plan.long_tokens)
        prompt = self.script.prompts[record.row]
        return client.generate(prompt=prompt, adapter=record.adapter, sampling=sampling, timeout=seconds)
