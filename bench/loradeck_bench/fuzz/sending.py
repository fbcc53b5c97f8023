"""Sends attempts to a live server, and keeps account: what ended how, what did not end, what told too much."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil

from loradeck_bench.fuzz.attempts import Attempt, Attempts, Names
from loradeck_bench.fuzz.telling import inner_text

HANG_SECONDS = 30.0
"""A call that has not ended by then hangs: the server under test ends all of them sooner."""
_CHECK_EVERY = 500
_LOOKS = 60
_WARM = 0.2
"""Share of the requests after which memory counts."""
_SHOWN = 10
_ROUNDING = 0.02
"""By which a probability may differ between batches, in bfloat16."""
_BUGS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS"})
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0), ("grpc.max_metadata_size", 1 << 20))


@dataclass
class Account:
    """What came of all attempts."""

    requests: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    """Answers that only a bug gives, and times when the server did not answer a valid request."""
    hangs: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers to the valid request that are not what the same revision answered at first."""
    looks: list[int] = field(default_factory=list)
    """Bytes of resident memory, after warm-up, each after as many requests."""
    answers: dict[str, dict[str, float]] = field(default_factory=dict)
    """What each revision answered at first: label to probability, by digest."""

    def growth(self) -> float:
        """By which share memory grew from the first third of the looks to the last."""
        third = max(1, len(self.looks) // 3)
        return statistics.median(self.looks[-third:]) / statistics.median(self.looks[:third]) - 1

    def slope(self) -> float:
        """By which share memory grows in as many requests as there were, at the pace of the last half of the looks."""
        half = self.looks[len(self.looks) // 2 :]
        if len(half) < 3:
            return 0.0
        found = statistics.linear_regression(range(len(half)), half)
        return found.slope * len(self.looks) / found.intercept

    def result(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "requests": self.requests,
            "crashes": len(self.crashes),
            "hangs": len(self.hangs),
            "wrong_tokens": len(self.wrong),
            "leaked": len(self.leaked),
            "rss_growth": round(self.growth(), 4) if self.looks else None,
            "rss_growth_at_the_end": round(self.slope(), 4) if self.looks else None,
            "rss_mib": [look >> 20 for look in self.looks],
            "codes": dict(self.codes.most_common()),
            "examples": {
                "crashes": self.crashes[:_SHOWN], "hangs": self.hangs[:_SHOWN], "leaked": self.leaked[:_SHOWN],
                "wrong_tokens": self.wrong[:_SHOWN],
            },
        }  # fmt: skip


async def fuzz_server(
    address: str, admin: str, names: Names, *, requests: int, seed: int, at_once: int = 32, pid: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Account:  # fmt: skip
    """Send `requests` attempts to both doors. With the server's `pid` its memory and its children's is watched."""
    account = Account()
    attempts = iter(Attempts(names, seed))
    inference = grpc.aio.insecure_channel(address, options=_OPTIONS)
    operators = grpc.aio.insecure_channel(admin, options=_OPTIONS)
    async with inference, operators:
        every = max(1, requests // _LOOKS)

        # One iterator for all workers: each takes the next number.
        numbers = iter(range(requests))

        async def worker() -> None:
            for number in numbers:
                attempt = next(attempts)
                await _send(operators if attempt.admin else inference, attempt, account)
                account.requests += 1
                if number % _CHECK_EVERY == 0:
                    await _check(inference, names, account)
                if number % every == 0:
                    progress(number)
                    if pid is not None and number >= requests * _WARM:
                        account.looks.append(_memory(pid))

        await asyncio.gather(*(worker() for _ in range(at_once)))
        await _check(inference, names, account)
    return account


async def _send(channel: Any, attempt: Attempt, account: Account) -> None:
    begin = time.monotonic()
    try:
        async with asyncio.timeout(HANG_SECONDS):
            code, said = await _call(channel, attempt)
    except TimeoutError:
        account.hangs.append(f"{attempt.path} after {time.monotonic() - begin:.0f} s: {attempt.body[:80]!r}")
        return
    account.codes[code] += 1
    what = f"{attempt.path} {code}: {said[:200]}"
    if code in _BUGS:
        account.crashes.append(what)
    told = inner_text(said) and inner_text(said, attempt.body.decode(errors="replace") + repr(attempt.metadata))
    if told is not None:
        account.leaked.append(f"{told!r} in {what}")


async def _call(channel: Any, attempt: Attempt) -> tuple[str, str]:
    """How the call ended, and all that its status says."""
    kind = channel.unary_stream if attempt.streams else channel.unary_unary
    call = kind(attempt.path)(attempt.body, timeout=attempt.timeout, metadata=attempt.metadata)
    if attempt.cancel_after is not None:
        asyncio.get_running_loop().call_later(attempt.cancel_after, call.cancel)
    try:
        if not attempt.streams:
            await call
        else:
            read = 0
            while attempt.reads is None or read < attempt.reads:
                if await call.read() is grpc.aio.EOF:  # type: ignore[attr-defined]
                    break
                read += 1
            else:
                call.cancel()
                return "CANCELLED", ""
        status = await call.code()
        return status.name, str(await call.details())
    except grpc.aio.AioRpcError as error:
        trailing: Any = error.trailing_metadata() or ()
        details = b"".join(value if isinstance(value, bytes) else value.encode() for _, value in trailing)
        return error.code().name, f"{error.details()} {details.decode(errors='replace')}"
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return "CANCELLED", ""


async def _check(channel: Any, names: Names, account: Account) -> None:
    """A valid request is answered, and as at first, whatever was sent before it."""
    import loradeck.inference.v1 as inference

    stub = inference.InferenceServiceStub(channel)  # type: ignore[no-untyped-call]
    adapter = names.classification[0] if names.classification else ""
    request = inference.ClassifyRequest(adapter=adapter, text="x", labels=() if adapter else ("a", "b"))
    # A full queue or a load in progress is no crash.
    until = time.monotonic() + HANG_SECONDS
    while True:
        try:
            reply = await stub.Classify(request, timeout=HANG_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and time.monotonic() < until:
                await asyncio.sleep(0.2)
                continue
            account.crashes.append(f"a valid request after {account.requests}: {error.code().name}: {error.details()}")
            return
        found = {one.label: one.probability for one in reply.probabilities}
        first = account.answers.setdefault(reply.provenance.digest, found)
        if found.keys() != first.keys() or any(abs(found[label] - first[label]) > _ROUNDING for label in first):
            account.wrong.append(f"after {account.requests}: {found}, at first {first}")
        return


def _memory(pid: int) -> int:
    process = psutil.Process(pid)
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
