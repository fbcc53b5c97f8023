"""Load in the demo: the load test over all adapters and the base, and the swap under load."""

import asyncio
from typing import Any

from loradeck_bench.asking import Asker, connect, wait_flip
from loradeck_bench.demo.plan import TASKS, DemoPlan
from loradeck_bench.demo.progress import Progress
from loradeck_bench.demo.quality import TIMEOUT, subject
from loradeck_bench.demo.server import Server
from loradeck_bench.demo.training import output_folder, push_output
from loradeck_bench.demo.workplace import Workplace
from loradeck_bench.load.plan import LoadPlan
from loradeck_bench.load.record import RequestRecord, write_record
from loradeck_bench.load.run import describe, run_load
from loradeck_bench.output import open_for_writing
from loradeck_bench.swapping import SwapPlan, measure_swap
from loradeck_registry.registry import Registry


def load_test(server: Server, workplace: Workplace, plan: DemoPlan) -> dict[str, Any]:
    """An open loop over the three adapters and the base, every request recorded; the summary for the report."""
    subjects = {adapter: subject(adapter, task, plan) for task, adapter in TASKS.items()}
    subjects[""] = subject("", "short_qa", plan)
    load = LoadPlan(subjects, duration=plan.load_seconds, rate=plan.rate, popularity="uniform", seed=plan.seed)
    records = workplace.output / "load.jsonl"
    return asyncio.run(_load(server.address, load, str(records), workplace.progress))


def swap_under_load(server: Server, workplace: Workplace, plan: DemoPlan, registry: Registry) -> dict[str, Any]:
    """Publish the second revision of the classifier and move `clf@prod` to it while requests for it keep coming."""
    adapter = TASKS["classification"]
    name, _, alias = adapter.partition("@")
    load = LoadPlan(
        {adapter: subject(adapter, "classification", plan)}, duration=600.0, rate=plan.swap_rate, seed=plan.seed
    )
    folder = output_folder(workplace, plan.second)

    async def run() -> dict[str, Any]:
        async with connect(server.address) as client:
            result, _ = await measure_swap(
                Asker(client, load.subjects, TIMEOUT),
                wait_flip(server.admin, name, alias),
                registry,
                SwapPlan(name, alias, load),
                lambda: push_output(registry, name, folder),
            )
        return result

    workplace.progress.note(f"{plan.swap_rate:g} requests/s on {adapter}")
    return asyncio.run(run())


async def _load(address: str, load: LoadPlan, records: str, progress: Progress) -> dict[str, Any]:
    async with connect(address) as client:
        with open_for_writing(records) as out:
            count = 0

            def keep(record: RequestRecord) -> None:
                nonlocal count
                count += 1
                write_record(record, out)
                progress.note(f"{count} requests answered")

            summary, _ = await run_load(Asker(client, load.subjects, TIMEOUT), load, keep)
    return {**summary, "description": describe(summary)}
