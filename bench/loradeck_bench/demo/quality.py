"""Quality in the demo: shown answers, evaluations of base, LoRA and full, and the baseline without a language model."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from loradeck_bench.asking import Asker, connect
from loradeck_bench.demo.plan import DemoPlan
from loradeck_bench.demo.progress import Progress
from loradeck_bench.evaluation.baseline import tfidf_baseline
from loradeck_bench.evaluation.run import Evaluation
from loradeck_bench.load.plan import Subject
from loradeck_bench.load.record import RequestRecord
from loradeck_bench.rows import COLUMNS, DEFAULT_DATA, Row, label_set, read_rows, sample

TIMEOUT = 120.0
"""Seconds per request."""


@cache
def all_rows(task: str) -> tuple[Row, ...]:
    """The whole test set of a task."""
    return tuple(read_rows(DEFAULT_DATA[task], task))


def chosen_rows(task: str, plan: DemoPlan) -> tuple[Row, ...]:
    """The rows of the test set that are evaluated."""
    by = "label" if task == "classification" else None
    return tuple(sample(all_rows(task), plan.sample, by=by, seed=plan.seed))


def subject(adapter: str, task: str, plan: DemoPlan) -> Subject:
    """An adapter, or the base for an empty one, with the rows of its task."""
    labels = tuple(label_set(all_rows(task))) if task == "classification" and not adapter else ()
    return Subject(adapter, task, chosen_rows(task, plan), labels)


def ask_examples(address: str, subjects: Sequence[Subject], plan: DemoPlan) -> list[dict[str, Any]]:
    """Ask each adapter the first row of its task, and the base the same; the answers in the form of report files."""

    async def ask() -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = []
        async with connect(address) as client:
            for who in subjects:
                answers = []
                for one in (who, subject("", who.task, plan)):
                    record = RequestRecord(0, one.adapter, one.task, 0, 0.0)
                    await Asker(client, {one.adapter: one}, TIMEOUT)(record, lambda: 0.0)
                    answers.append(record)
                shown.append({**example(who.rows[0], answers[0]), "base_answer": answers[1].text})
        return shown

    return asyncio.run(ask())


def example(row: Row, record: RequestRecord) -> dict[str, Any]:
    """One shown answer in the form of report files."""
    columns = COLUMNS[record.task]
    return {
        "task": record.task,
        "adapter": record.answered_by,
        "revision": record.revision,
        "digest": record.digest,
        "residency": record.residency or "base",
        "context": row.get("context", ""),
        "question": row.get("question") or row.get("text", ""),
        "answer": record.text,
        "reference": row[columns[-1]],
        "probability": record.probability,
    }


def evaluate(address: str, who: Subject, plan: DemoPlan, progress: Progress, title: str) -> dict[str, Any]:
    """Figures of one model on one task, and under `items` every answer. A server that went away is in `unfinished`."""
    labels = label_set(all_rows(who.task)) if who.task == "classification" else []

    async def ask() -> tuple[Evaluation, str | None]:
        async with connect(address, retry=True) as client:
            run = Evaluation(Asker(client, {who.adapter: who}, TIMEOUT), who.task, who.rows, who.adapter, labels)
            total = len(who.rows)
            return run, await run.run(plan.concurrency, lambda done: progress.note(f"{title}: {done} of {total} rows"))

    evaluation, unfinished = asyncio.run(ask())
    figures = evaluation.figures()
    figures["source"] = f"{len(who.rows)} of {len(all_rows(who.task))} test rows of {DEFAULT_DATA[who.task]}"
    figures["items"] = evaluation.items()
    if unfinished:
        figures["unfinished"] = unfinished
    return figures


def baseline(plan: DemoPlan) -> dict[str, Any]:
    """TF-IDF with logistic regression, trained on the training rows, on the same test rows."""
    train = read_rows(DEFAULT_DATA["classification"], "classification", split="train")
    rows = chosen_rows("classification", plan)
    figures = tfidf_baseline(
        [row["text"] for row in train],
        [row["label"] for row in train],
        [row["text"] for row in rows],
        [row["label"] for row in rows],
    )
    return {**figures, "source": f"{len(rows)} of {len(all_rows('classification'))} test rows", "failed": 0}
