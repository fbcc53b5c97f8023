"""How many requests per second one client process sends before it is the bottleneck itself."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loradeck_bench.asking import Asking
from loradeck_bench.children import Child
from loradeck_bench.load.plan import LoadPlan, Subject
from loradeck_bench.load.run import Sent
from loradeck_bench.load.saturation import judge_step
from loradeck_bench.load.session import Session
from loradeck_bench.load.vitals import BUSY, LATE_MS, client_of
from loradeck_bench.machine import machine, versions
from loradeck_registry.errors import UnavailableError

ROW = {"text": "a text of some length, as a classification has it", "context": "", "question": "why?", "label": "a",
       "long_answer": "word"}  # fmt: skip
KINDS = {"unary": "classification", "stream": "long_qa"}
"""Kinds of request: one reply, and a stream of one message per token."""


@dataclass(frozen=True)
class ClientPlan:
    """Open loops at rising rates, Poisson arrivals, against a server that answers at once."""

    start: float = 200.0
    factor: float = 1.4
    steps: int = 12
    seconds: float = 4.0
    """Of a step."""
    chunks: int = 32
    """Messages of a stream before its last."""
    processes: int = 1


@dataclass(frozen=True)
class ClientStep:
    """One rate: what the client did, and why it is too much for it (empty if it is not)."""

    rate: float
    requests: int
    failed: int
    answered_per_second: float
    cpu_share: float
    delay_p99_ms: float
    lag_p99_ms: float
    client_ms_per_request: float
    """Time on a core that a request takes of the client, all its processes together."""
    limit: str
    """Empty, `client`, or `server`: the answering server no longer keeps up, so the client could do more."""


async def measure_client(
    plan: ClientPlan, seen: Callable[[str, ClientStep], None] = lambda kind, step: None
) -> dict[str, Any]:
    """Raise the rate until client or server is at its limit, for each kind of request.

    `requests_per_second` is the highest rate at which the client was not the bottleneck, by the rule of `bench load`;
    None if no step was. Raises UnavailableError if the answering server does not come up.
    """
    kinds: dict[str, Any] = {}
    for kind, task in KINDS.items():
        with answering(plan.chunks) as address:
            kinds[kind] = await _climb(plan, address, task, partial(seen, kind))
    return {
        **asdict(plan),
        "kinds": kinds,
        "rule": f"the client is the bottleneck: requests or its event loop over {LATE_MS:g} ms late (p99), or a "
        f"process over {BUSY:.0%} of a core",
        "machine": machine(),
        "versions": versions(),
    }


@contextmanager
def answering(chunks: int) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, "-m", "loradeck_bench.load.client.answering", "--chunks", str(chunks)]
    with (
        tempfile.TemporaryDirectory() as folder,
        Child("answering server", command, Path(folder) / "log", pipes=True, grace=5.0) as child,
    ):
        assert child.output is not None
        address = child.output.readline().decode().strip()
        if not address:
            raise UnavailableError(f"the answering server did not start: {' '.join(child.tail())}")
        yield address


async def _climb(plan: ClientPlan, address: str, task: str, seen: Callable[[ClientStep], None]) -> dict[str, Any]:
    subject = Subject("none", task, (ROW,), max_tokens=plan.chunks if task != "classification" else None)
    session = Session(Asking(address, {"none": subject}, 30.0), plan.processes)
    steps: list[ClientStep] = []
    for number in range(plan.steps):
        rate = plan.start * plan.factor**number
        load = LoadPlan({"none": subject}, plan.seconds, rate, seed=number, warm_up=5)
        steps.append(step_of(rate, plan.seconds, await session.send(load)))
        seen(steps[-1])
        if steps[-1].limit:
            break
    held = [step for step in steps if not step.limit]
    return {
        "requests_per_second": held[-1].rate if held else None,
        "limit": steps[-1].limit,
        "client_ms_per_request": held[-1].client_ms_per_request if held else None,
        "steps": [asdict(step) for step in steps],
    }


def step_of(rate: float, seconds: float, sent: Sent) -> ClientStep:
    """What a step at `rate` for `seconds` shows of the client."""
    client = client_of(sent.records, sent.vitals)
    judged = judge_step(sent.records, rate, seconds)
    delays: Sequence[float] = sorted(record.delay or 0.0 for record in sent.records)
    spent = sum(one.cpu_seconds for one in sent.vitals)
    return ClientStep(
        rate,
        len(sent.records),
        judged.failed,
        judged.answered_per_second,
        max(client["cpu_shares"], default=0.0),
        1000 * delays[min(len(delays) - 1, int(0.99 * len(delays)))],
        client["event_loop_lag_ms"]["p99"] if client["event_loop_lag_ms"] else 0.0,
        1000 * spent / len(sent.records),
        "client" if client["bottleneck"] else "server" if judged.saturated else "",
    )
