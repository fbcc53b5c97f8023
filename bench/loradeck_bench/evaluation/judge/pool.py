"""Asks a judge many questions at once, counts what fails, and stops where the endpoint is gone."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from loradeck_registry.errors import LoradeckError

LOST = 8
"""After so many failures in a row the endpoint counts as gone, and nothing further is asked."""

Job = TypeVar("Job")


async def ask_all(
    jobs: Sequence[Job],
    ask: Callable[[Job], Awaitable[None]],
    failed: Callable[[Job, LoradeckError], None],
    concurrency: int,
    progress: Callable[[int], None],
) -> str | None:
    """Run `ask` on every job, `concurrency` at a time; a job that fails is given to `failed` and the rest goes on.

    Returns None when all were asked, else in one line why not. The first job goes alone: what it raises is raised, so
    that a wrong address or key is told at once.
    """
    if not jobs:
        return None
    await ask(jobs[0])
    waiting = iter(jobs[1:])
    done, lost = 1, 0

    async def worker() -> None:
        nonlocal done, lost
        for job in waiting:
            try:
                await ask(job)
                lost = 0
            except LoradeckError as error:
                failed(job, error)
                lost += 1
            done += 1
            progress(done)
            if lost >= LOST:
                return

    try:
        await asyncio.gather(*(worker() for _ in range(concurrency)))
    except asyncio.CancelledError:
        return f"interrupted after {done} of {len(jobs)} questions"
    if lost >= LOST:
        return f"the judge failed {lost} times in a row, after {done} of {len(jobs)} questions"
    return None
