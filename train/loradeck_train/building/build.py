"""The two sets of the study: texts with one class each, and questions with a short and a long answer."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from loradeck_registry.errors import InvalidError
from loradeck_train.building.endpoint import Endpoint, EndpointSettings, MalformedError, RefusedError
from loradeck_train.building.prompts import is_about, long_answer, short_answer
from loradeck_train.building.sources import Thread
from loradeck_train.loop.disk import writing

Answer = TypeVar("Answer")
ROWS, ASIDE, CACHE, REPORT = "train.jsonl", "set-aside.jsonl", "replies.jsonl", "report.json"


@dataclass
class Report:
    """What came of it: rows written, rows set aside by reason, and what the endpoint cost."""

    rows: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    usage: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Figures for programs."""
        return {
            "rows": self.rows, "set_aside": dict(self.set_aside), "labels": dict(self.labels), "usage": self.usage,
        }  # fmt: skip


Outcome = tuple[dict[str, Any] | None, str, dict[str, Any]]
"""A row or None, the reason why it was set aside, and what is kept of it then."""


def build_classification(
    texts: Iterable[str], classes: Sequence[str], settings: EndpointSettings, folder: Path
) -> Report:
    """Ask for every class of every text. A text with exactly one positive becomes a row with `text` and `label`; one
    with none or with several is set aside (`no_class`, `several_classes`, with the positives), never guessed.

    Raises InvalidError for fewer than two classes, and what `Endpoint.ask` raises for the endpoint's own trouble.
    """
    if len(set(classes)) < 2 or len(set(classes)) != len(classes):
        raise InvalidError("name two or more different classes", reason="BAD_CLASSES", field="class")

    async def one(endpoint: Endpoint, text: str) -> Outcome:
        found = await _all(endpoint.ask(is_about(text, name)) for name in classes)
        positive = [name for name, yes in zip(classes, found, strict=True) if yes]
        if len(positive) == 1:
            return {"text": text, "label": positive[0]}, "", {}
        return None, "several_classes" if positive else "no_class", {"text": text, "positive": positive}

    return _run(folder, _build(texts, one, lambda text: {"text": text}, settings, folder))


def build_answers(threads: Iterable[Thread], settings: EndpointSettings, folder: Path) -> Report:
    """Ask for a short and a long answer to every question. Rows have `context` (the forum's answer), `question`,
    `short_answer` and `long_answer`. Raises what `Endpoint.ask` raises for the endpoint's own trouble."""

    async def one(endpoint: Endpoint, thread: Thread) -> Outcome:
        asked = (short_answer(thread.question, thread.answer), long_answer(thread.question, thread.answer))
        short, long = await _all(endpoint.ask(question) for question in asked)
        row = {"context": thread.answer, "question": thread.question, "short_answer": short, "long_answer": long}
        return row, "", {}

    return _run(folder, _build(threads, one, vars, settings, folder))


async def _all(asked: Iterable[Awaitable[Answer]]) -> list[Answer]:
    """All answers, or the first error in the order of asking; nothing is left under way either way."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    answers: list[Answer] = []
    for item in found:
        if isinstance(item, BaseException):
            raise item
        answers.append(item)
    return answers


def _run(folder: Path, work: Coroutine[Any, Any, Report]) -> Report:
    try:
        with writing("the data set", folder):
            folder.mkdir(parents=True, exist_ok=True)
            report = asyncio.run(work)
            content = json.dumps(report.as_json(), indent=1, ensure_ascii=False)
            (folder / REPORT).write_text(content + "\n", encoding="utf-8")
    finally:
        work.close()
    return report


async def _build(
    items: Iterable[Any],
    one: Callable[[Endpoint, Any], Awaitable[Outcome]],
    describe: Callable[[Any], dict[str, Any]],
    settings: EndpointSettings,
    folder: Path,
) -> Report:
    """Rows in the order of the items, whatever the order of the replies; the replies are kept as they come."""
    report = Report()
    window = max(1, 4 * settings.concurrency)

    async def guarded(endpoint: Endpoint, item: Any) -> Outcome:
        try:
            return await one(endpoint, item)
        except RefusedError as error:
            return None, "refused", {**describe(item), "reply": str(error)}
        except MalformedError as error:
            return None, "malformed", {**describe(item), "reply": str(error)}

    async with Endpoint(settings, folder / CACHE) as endpoint:
        with (folder / ROWS).open("w", encoding="utf-8") as rows, (folder / ASIDE).open("w", encoding="utf-8") as aside:
            waiting: list[asyncio.Task[Outcome]] = []
            source = iter(items)
            try:
                while True:
                    for item in source:
                        waiting.append(asyncio.create_task(guarded(endpoint, item)))
                        if len(waiting) >= window:
                            break
                    if not waiting:
                        break
                    _write(await waiting.pop(0), rows, aside, report)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
        report.usage = endpoint.usage.as_json()
    return report


def _write(outcome: Outcome, rows: Any, aside: Any, report: Report) -> None:
    row, reason, kept = outcome
    if row is None:
        report.set_aside[reason] += 1
        aside.write(json.dumps({"reason": reason, **kept}, ensure_ascii=False) + "\n")
        return
    report.rows += 1
    if "label" in row:
        report.labels[row["label"]] += 1
    rows.write(json.dumps(row, ensure_ascii=False) + "\n")
