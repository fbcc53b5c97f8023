"""The only file that talks to servers: sends one row through the client and fills in the record of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from loradeck_bench.load.plan import Subject
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.rows import Row, field_names
from loradeck_client import Answer, AsyncAdminClient, AsyncClient, Classification, RetryPolicy, Sampling
from loradeck_client.access import Access
from loradeck_client.aio import AsyncTextStream
from loradeck_client.results import AliasFlip
from loradeck_registry.errors import InvalidError, UnavailableError


def connect(address: str, *, retry: bool = False) -> AsyncClient:
    """A client that tries once: a retry would hide what a load test is there to see. With `retry` it tries again where
    the server asks for it, which is what an evaluation of answers wants. Who it is there, the environment says."""
    return AsyncClient(address, retry=None if retry else RetryPolicy(attempts=1), access=Access.from_environment())


def connect_admin(address: str) -> AsyncAdminClient:
    """A client of the door for operators; who it is there, the environment says."""
    return AsyncAdminClient(address, access=Access.from_environment())


SECONDS = 120.0
"""Deadline of one request where none is asked for."""


class Asker:
    """Sends the row of a record to the adapter of a record; greedy decoding, the subject's limit of tokens."""

    def __init__(self, client: AsyncClient, subjects: Mapping[str, Subject], seconds: float = SECONDS) -> None:
        """`seconds` is the deadline of one request."""
        self._client = client
        self._subjects = subjects
        self._seconds = seconds

    async def __call__(self, record: RequestRecord, now: Callable[[], float]) -> None:
        """Ask, and fill in text, tokens, chunk times and who answered. Raises LoradeckError."""
        subject = self._subjects[record.adapter]
        row = subject.rows[record.row]
        if subject.task == "classification":
            reply = await self._client.classify(
                row["text"], adapter=record.adapter, labels=subject.labels, timeout=self._seconds
            )
            record.text = reply.label
            record.probability = reply.probabilities[0].probability
            _who(record, reply)
            return
        sampling = Sampling(temperature=0.0, max_tokens=record.max_tokens or subject.limit)
        if subject.task == "generate":
            asked = _generation(subject, row)
            stream = self._client.generate(**asked, adapter=record.adapter, sampling=sampling, timeout=self._seconds)
            answer = await _read(stream, record, now)
            record.text = answer.text
            _who(record, answer)
            return
        if subject.task == "short_qa":
            answer = await self._client.answer_short(
                row["question"],
                context=row["context"],
                adapter=record.adapter,
                sampling=sampling,
                timeout=self._seconds,
            )
        else:
            stream = self._client.answer_long(
                row["question"],
                context=row["context"],
                adapter=record.adapter,
                sampling=sampling,
                timeout=self._seconds,
            )
            answer = await _read(stream, record, now)
        record.text = answer.text
        _who(record, answer)


@dataclass(frozen=True)
class Asking:
    """Whom to ask where: all that a client needs, in a form that another process can be given."""

    address: str
    subjects: Mapping[str, Subject]
    seconds: float = SECONDS

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Asker]:
        """An asker with a client of its own, which is closed when the block is left."""
        async with connect(self.address) as client:
            yield Asker(client, self.subjects, self.seconds)


async def _read(stream: AsyncTextStream, record: RequestRecord, now: Callable[[], float]) -> Answer:
    """The whole answer; the time and tokens of every chunk go into the record."""
    async with stream:
        async for chunk in stream:
            moment = now()
            if record.first is None:
                record.first = moment
            record.chunks.append((moment, chunk.tokens))
        return await stream.result()


def _generation(subject: Subject, row: Row) -> dict[str, Any]:
    """What `generate` is asked: a raw prompt, the fields of the adapter's template, or a message to a base."""
    if subject.raw:
        return {"prompt": row["prompt"]}
    fields = {name: row[name] for name in field_names(row)}
    return {"fields": fields} if subject.adapter else {"message": _message(subject, fields)}


def _message(subject: Subject, fields: Mapping[str, str]) -> str:
    if subject.template is not None:
        try:
            return subject.template.format_map(fields)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise InvalidError(f"bad template: {what}", reason="BAD_TEMPLATE", field="template") from None
    if len(fields) > 1:
        raise InvalidError(
            f"a base has no template for {', '.join(fields)}: say how they become its message (--template)",
            reason="NO_TEMPLATE",
            field="template",
        )
    return next(iter(fields.values()))


def _who(record: RequestRecord, reply: Answer | Classification) -> None:
    provenance, usage = reply.provenance, reply.usage
    record.answered_by = provenance.adapter
    record.revision = provenance.revision
    record.digest = provenance.digest
    record.residency = provenance.residency
    record.queue_seconds = provenance.queue_seconds
    record.load_seconds = provenance.load_seconds
    record.prompt_tokens = usage.prompt_tokens
    record.cached_prompt_tokens = usage.cached_prompt_tokens
    record.output_tokens = usage.output_tokens


def wait_flip(admin: str, name: str, alias: str) -> Callable[[int], Awaitable[None]]:
    """A function that returns once the server at the door `admin` has said that `name@alias` means a given revision."""

    async def wait(revision: int) -> None:
        async with connect_admin(admin) as client:
            async for event in client.watch([name]):
                if isinstance(event, AliasFlip) and (event.alias, event.revision) == (alias, revision):
                    return
        raise UnavailableError(f"the server at {admin} ended its watch", reason="WATCH_ENDED")

    return wait
