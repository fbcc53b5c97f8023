"""The demo, step by step. Every step adds its part to the report; what a failure leaves is still written."""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from loradeck_bench.demo.headline import headline
from loradeck_bench.demo.plan import FULL, STEPS, TASKS, DemoPlan, Training
from loradeck_bench.demo.progress import Progress
from loradeck_bench.demo.quality import ask_examples, baseline, evaluate, subject
from loradeck_bench.demo.server import Server, serving
from loradeck_bench.demo.traffic import load_test, swap_under_load
from loradeck_bench.demo.training import train_command, training_record
from loradeck_bench.demo.workplace import Workplace
from loradeck_bench.load.plan import Subject
from loradeck_bench.machine import machine, versions
from loradeck_bench.output import write_json
from loradeck_bench.report.html import write_report
from loradeck_bench.report.units import duration, size
from loradeck_bench.storage import storage_report
from loradeck_registry.errors import LoradeckError, PreconditionError, UnavailableError
from loradeck_registry.registry import Registry

MARKER = ".loradeck-demo"
"""File that says that a folder was made by a demo and may be emptied by the next one."""

UNCOMPILED = ("engine.enforce_eager=true",)
"""Compiling pays on a server that stays, not on one that answers for a minute."""


class Demo:
    """One run of the demo. `report` grows step by step."""

    def __init__(self, plan: DemoPlan, console: Console) -> None:
        self.plan = plan
        self.progress = Progress(console, STEPS)
        output = plan.output.resolve()
        # Everything that the demo reads and writes stays in its folder.
        self.workplace = Workplace(output, self.progress, {"LORADECK_CACHE": str(output / "cache")})
        self.report: dict[str, Any] = {
            "title": "loradeck demo" + (" (quick run: its figures mean nothing)" if plan.quick else ""),
            "created": f"{datetime.now():%Y-%m-%d %H:%M}",
            "base": plan.base_name,
            "machine": machine(),
            "versions": versions(),
        }

    def run(self) -> Path:
        """Run all steps; returns the path of report.html. Whatever a step raises is raised after the report so far was
        written."""
        clear(self.workplace.output)
        try:
            self._steps()
        except KeyboardInterrupt:
            self._write(f"interrupted in the step “{self.progress.current}”.")
            raise
        except LoradeckError as error:
            page = self._write(f"the step “{self.progress.current}” failed: {error.message.splitlines()[0]}")
            error.message += f"\nwhat was measured before: {page}; logs: {self.workplace.logs}"
            raise
        return self._write(None)

    def _steps(self) -> None:
        names = iter(STEPS)
        step = self.progress.step
        with step(next(names)):
            registry = self._make_registry()
        with step(next(names)):
            self._train({**self.plan.adapters, "train clf-full": self.plan.full}, registry)
        with ExitStack() as stack:
            with step(next(names)):
                server = stack.enter_context(serving(self.workplace, self.plan.base_name, "serve", UNCOMPILED))
                self.progress.say(f"ready after {duration(server.start_seconds)} at {server.address}")
            with step(next(names)):
                self._ask(server, [subject(adapter, task, self.plan) for task, adapter in TASKS.items()])
            with step(next(names)):
                self._evaluate_all(server)
            with step(next(names)):
                second = train_command(self.workplace, self.plan.second, self.plan.base_name, publish=False)
                self.workplace.run({"train clf second revision": second})
            with step(next(names)):
                self._swap(server, registry)
            with step(next(names)):
                self.report["load"] = load_test(server, self.workplace, self.plan)
                check_finished(self.report["load"])
        with step(next(names)), serving(self.workplace, f"{FULL}@prod", "serve full", UNCOMPILED) as server:
            self._evaluate(server, "classification", "full", FULL)
        with step(next(names)):
            self._describe(registry)

    def _make_registry(self) -> Registry:
        url = str(self.workplace.registry)
        self.workplace.run({"registry init": ["registry", "init", "--registry", url]})
        add = ["registry", "add-base", self.plan.base_name, self.plan.base, "--registry", url]
        self.workplace.run({"registry add-base": add})
        registry = Registry.open(url, cache=self.workplace.output / "cache")
        base = registry.resolve(self.plan.base_name)
        self.progress.say(f"{base}, {size(base.manifest.size)}, {base.digest[:19]}")
        return registry

    def _train(self, trainings: dict[str, Training], registry: Registry) -> None:
        commands = {
            name: train_command(self.workplace, training, self.plan.base_name) for name, training in trainings.items()
        }
        self.workplace.run(commands, at_once=self.plan.trainings_at_once)
        for training in trainings.values():
            revision = registry.resolve(training.publish)
            record = training_record(revision)
            self.report.setdefault("training", {})[str(revision)] = record
            self.progress.say(
                f"{revision}: {record['steps']} steps in {duration(record['seconds'])}, last loss "
                f"{record['last_loss']:.3f}, {size(revision.manifest.size)}"
            )

    def _ask(self, server: Server, subjects: Iterable[Subject]) -> None:
        answers = ask_examples(server.address, list(subjects), self.plan)
        self.report.setdefault("answers", []).extend(answers)
        for answer in answers:
            probability = "" if answer["probability"] is None else f" ({answer['probability']:.0%})"
            self.progress.say(f"{answer['adapter']}@{answer['revision']} ({answer['residency']})")
            self.progress.say(f"  question:  {answer['question']}")
            self.progress.say(f"  answer:    {answer['answer']}{probability}")
            self.progress.say(f"  reference: {answer['reference']}")
            self.progress.say(f"  base:      {answer['base_answer']}")

    def _evaluate_all(self, server: Server) -> None:
        self.report.setdefault("tasks", {})["classification"] = {"tfidf": baseline(self.plan)}
        for task, adapter in TASKS.items():
            self._evaluate(server, task, "base", "")
            self._evaluate(server, task, "lora", adapter)

    def _evaluate(self, server: Server, task: str, model: str, adapter: str) -> None:
        who = subject(adapter, task, self.plan)
        figures = evaluate(server.address, who, self.plan, self.progress, f"{task}, {model}")
        items = figures.pop("items")
        write_json({**figures, "items": items}, str(self.workplace.output / "evaluation" / f"{task}-{model}.json"))
        self.report.setdefault("tasks", {}).setdefault(task, {})[model] = figures
        keys = ("accuracy", "macro_f1") if task == "classification" else ("bleu", "rouge_1", "chrf", "resp_len")
        shown = ", ".join(f"{key} {figures[key]:.3f}" for key in keys)
        failed = f", {figures['failed']} FAILED" if figures["failed"] else ""
        self.progress.say(f"{task}, {model}: {shown} ({figures['answered']} rows{failed})")
        check_finished(figures)

    def _swap(self, server: Server, registry: Registry) -> None:
        result = swap_under_load(server, self.workplace, self.plan, registry)
        self.report["swap"] = result
        revision = registry.resolve(TASKS["classification"])
        self.report.setdefault("training", {})[str(revision)] = training_record(revision)
        stages = ", ".join(f"{stage.replace('_', ' ')} {duration(took)}" for stage, took in result["seconds"].items())
        self.progress.say(
            f"{result['requests']} requests, {result['failed']} failed, {result['wrong_revision']} by a wrong revision"
        )
        self.progress.say(stages)

    def _describe(self, registry: Registry) -> None:
        storage = storage_report(registry)
        self.report["storage"] = storage.pop("rows")
        self.report["storage_total"] = storage
        self.report["headline"] = headline(self.report)

    def _write(self, unfinished: str | None) -> Path:
        self.report["seconds"] = self.progress.seconds
        self.report["steps"] = self.progress.done
        if unfinished:
            self.report["unfinished"] = unfinished
        _, page = write_report(self.report, self.workplace.output)
        return page


def check_finished(figures: Mapping[str, Any]) -> None:
    """Go on only after a measurement that came to its end; a part of one is in the report already.

    Raises KeyboardInterrupt if it was interrupted, UnavailableError if the server went away.
    """
    unfinished = figures.get("unfinished")
    if unfinished and unfinished.startswith("interrupted"):
        raise KeyboardInterrupt
    if unfinished:
        raise UnavailableError(unfinished)


def clear(output: Path) -> None:
    """Make `output` an empty folder marked as a demo's. Raises PreconditionError if it holds anything else."""
    try:
        if output.exists() and any(output.iterdir()):
            if not (output / MARKER).is_file():
                raise PreconditionError(
                    f"{output} is not empty and was not made by a demo: choose another --output", reason="NOT_EMPTY"
                )
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        (output / MARKER).touch()
    except OSError as error:
        raise PreconditionError(f"cannot write to {output}: {error.strerror}", reason="NOT_WRITABLE") from None
