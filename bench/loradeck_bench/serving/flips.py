"""Hot swap under constant load: aliases move in the registry while base and adapters answer, every reply checked."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from loradeck_bench.asking import Asker, connect
from loradeck_bench.load.flips import Flip
from loradeck_bench.load.generator import Ask, LoadRun
from loradeck_bench.load.plan import LoadPlan, Subject
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.load.run import warm_up
from loradeck_bench.loop import run_fast
from loradeck_bench.serving.cliff import find_saturation
from loradeck_bench.serving.flip_account import Flipping, Span, account
from loradeck_bench.serving.prompts import make_prompts, prompt_subjects
from loradeck_bench.serving.stage import Stage, circumstances, stage
from loradeck_client import AliasFlip, AsyncAdminClient
from loradeck_registry.errors import PreconditionError
from loradeck_registry.registry import Registry, Revision
from loradeck_tasks.defaults import default_task

STEPS = ("make adapters", "start the server", "golden answers", "measure")
ALIAS = "prod"
TOKENS = 8
"""Tokens of every reply: revisions must differ within them."""


@dataclass(frozen=True)
class FlipPlan:
    """`flips` moves in turn over `adapters` aliases, under a load of `share` of the saturation."""

    flips: int = 30
    adapters: int = 4
    slots: int = 4
    replies: int = 1000
    """The load goes on after the last flip until so many have been checked, at most `most_seconds`."""
    stretches: int = 3
    """Stretches of flips, each after one of load alone: a machine that is slower for a while is so for both."""
    before: float = 20.0
    """Seconds of load alone, over all stretches."""
    settle: float = 1.0
    """Seconds of load after each flip."""
    patience: float = 10.0
    """Longest wait for the server to follow."""
    most_seconds: float = 120.0
    saturation_seconds: float = 5.0
    share: float = 0.3
    prompts: int = 8
    prompt_tokens: int = 100


Revisions = Mapping[str, Sequence[Revision]]
"""Two revisions by adapter name."""


def measure_flips(base: Path, plan: FlipPlan, console: Console) -> dict[str, Any]:
    """Make two revisions of each adapter, serve them in float32, flip under load, and check every reply."""
    started = os.getloadavg()
    with stage(base, console, STEPS) as place:
        progress = place.workplace.progress
        with progress.step(STEPS[0]):
            revisions = publish_revisions(place, plan)
        settings = {
            "slots": plan.slots,
            "host_adapters": 2 * plan.adapters + plan.slots,
            # Rounding must not decide between two tokens: every reply is compared with one given to a lone request.
            "engine.dtype": "float32",
            "engine.max_model_len": 512,
            "engine.kv_cache_gib": 0.5,
            "limits.concurrent": 64,
        }
        with contextlib.ExitStack() as stack:
            with progress.step(STEPS[1]):
                server = stack.enter_context(place.serve(settings))
            result = run_fast(measure_on_server(server.address, server.admin, place, revisions, plan))
    return {**result, **circumstances(started)}


def publish_revisions(place: Stage, plan: FlipPlan) -> dict[str, list[Revision]]:
    """Two revisions of each adapter; ALIAS means the first."""
    task = default_task("generate")
    found: dict[str, list[Revision]] = {}
    for number in range(plan.adapters):
        name = f"flip-{number}"
        first = place.publish(name, task, 2 * number, alias=ALIAS)
        found[name] = [first, place.publish(name, task, 2 * number + 1)]
    return found


async def measure_on_server(
    address: str, admin: str, place: Stage, revisions: Revisions, plan: FlipPlan
) -> dict[str, Any]:
    """Flip the aliases of `revisions` in the registry of `place` under load on a running server, and check replies."""
    progress = place.workplace.progress
    async with connect(address) as client, AsyncAdminClient(admin) as operator:
        with progress.step(STEPS[2]):
            made = make_prompts(place.base.folder, 8 * plan.prompts, plan.prompt_tokens)
            candidates = [prompt.text for prompt in made]
            exact = [f"{name}@{revision.number}" for name, pair in revisions.items() for revision in pair]
            every = prompt_subjects(["", *exact], candidates, TOKENS)
            prompts, golden = await choose_prompts(Asker(client, every), every, plan.prompts)
        with progress.step(STEPS[3]):
            subjects = prompt_subjects(["", *(f"{name}@{ALIAS}" for name in revisions)], prompts, TOKENS)
            ask = Asker(client, subjects)
            closed = LoadPlan(subjects, plan.saturation_seconds, concurrency=32, popularity="round_robin")
            saturation = await find_saturation(ask, closed)
            rate = plan.share * saturation
            progress.say(f"load: {rate:.1f} of {saturation:.1f} requests/s")
            load = LoadPlan(subjects, plan.most_seconds, rate=rate, arrivals="constant", popularity="round_robin")
            await warm_up(ask, load)
            run = LoadRun(ask)
            flipping = await flip_under_load(run, load, place.registry, operator, revisions, plan, progress.note)
    initial = {name: pair[0].digest for name, pair in revisions.items()}
    return {
        **account(run.records, flipping, initial, golden),
        "adapters": plan.adapters,
        "prompts": len(prompts),
        "tokens_per_reply": TOKENS,
        "saturation_requests_per_s": saturation,
        "rate_requests_per_s": rate,
        "dtype": "float32",
    }


async def choose_prompts(
    ask: Ask, subjects: Mapping[str, Subject], count: int
) -> tuple[list[str], dict[tuple[str, int], str]]:
    """`count` prompts to which every subject, asked alone, gives an answer of its own, and those answers by digest and
    number of the prompt. Raises PreconditionError if there are not so many."""
    prompts: list[str] = []
    golden: dict[tuple[str, int], str] = {}
    rows = next(iter(subjects.values())).rows
    for number, row in enumerate(rows):
        answers = []
        for reference in subjects:
            record = RequestRecord(number, reference, "generate", number, 0.0)
            await ask(record, lambda: 0.0)
            answers.append(record)
        texts = {record.text for record in answers}
        if len(texts) == len(answers) and "" not in texts:
            golden |= {(record.digest, len(prompts)): record.text for record in answers}
            prompts.append(row["prompt"])
        if len(prompts) == count:
            return prompts, golden
    raise PreconditionError(
        f"only {len(prompts)} of {len(rows)} prompts get answers that tell all revisions apart within {TOKENS} tokens"
    )


async def flip_under_load(
    run: LoadRun,
    load: LoadPlan,
    registry: Registry,
    operator: AsyncAdminClient,
    revisions: Revisions,
    plan: FlipPlan,
    note: Callable[[str], None],
) -> Flipping:
    """Keep the load up and move the aliases in the registry, one after the other; `run` has the records afterwards."""
    flips: list[Flip] = []
    calm: list[Span] = []
    busy: list[Span] = []
    heard = asyncio.Event()
    sending = asyncio.create_task(run.open_loop(load.scheduled()))
    watching = asyncio.create_task(_watch(operator, revisions, flips, run, heard))
    try:
        names = list(revisions)
        for number in range(plan.flips):
            if number * plan.stretches // plan.flips != (number - 1) * plan.stretches // plan.flips:
                begin = run.now()
                await _pause(plan.before / plan.stretches, sending, watching)
                calm.append((begin, run.now()))
            name = names[number % len(names)]
            old, new = revisions[name][number // len(names) % 2], revisions[name][(number // len(names) + 1) % 2]
            heard.clear()
            flips.append(Flip(name, new.digest, run.now()))
            await asyncio.to_thread(
                registry.move_alias, name, ALIAS, str(new.number), expect=old.number, why="swap measurement"
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), plan.patience)
            await _pause(plan.settle, sending, watching)
            busy.append((flips[-1].started, run.now()))
            note(f"flip {number + 1} of {plan.flips}, {len(run.records)} replies")
        remaining = max(0, plan.replies - len(run.records))
        assert load.rate is not None
        if remaining:
            await asyncio.wait({sending}, timeout=remaining / load.rate)
        run.stop()
        await sending
    finally:
        for task in (sending, watching):
            task.cancel()
        await asyncio.gather(sending, watching, return_exceptions=True)
    return Flipping(flips, calm, busy)


async def _pause(seconds: float, *tasks: "asyncio.Task[None]") -> None:
    """Let the tasks go on for so long; raise what one of them died of."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    if done:
        raise PreconditionError("the load ended before the last flip: allow more seconds, or fewer flips")


async def _watch(
    operator: AsyncAdminClient, revisions: Revisions, flips: Sequence[Flip], run: LoadRun, heard: asyncio.Event
) -> None:
    """Note when the server says that it follows the flip under way."""
    async for event in operator.watch(list(revisions)):
        if not isinstance(event, AliasFlip) or event.alias != ALIAS or not flips:
            continue
        flip = flips[-1]
        digests = {revision.number: revision.digest for revision in revisions[flip.name]}
        if event.name == flip.name and digests.get(event.revision) == flip.digest and flip.acknowledged is None:
            flip.acknowledged = run.now()
            heard.set()
