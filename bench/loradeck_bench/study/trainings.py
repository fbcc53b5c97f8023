"""Bases and trainings of a study: `loradeck registry add-base` and `loradeck train run` as child processes."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loradeck_bench.children import Child, ChildFailedError
from loradeck_bench.demo.workplace import cores
from loradeck_bench.study.plan import Planned
from loradeck_bench.study.work import Work, read_result


def add_bases(work: Work) -> None:
    """Make the registry and store the bases that are left in it."""
    for one in work.ready("bases"):
        step, base = one.step, work.plan.study.bases[one.step.name]
        started = time.monotonic()
        try:
            if not work.place.registry.exists():
                work.finish(step, ["registry", "init", "--registry", str(work.place.registry)])
            found = work.place.root / "base.json"
            arguments = ["registry", "add-base", step.name, base.source, "--registry", str(work.place.registry)]
            if base.reserve_tokens is not None:
                arguments += ["--reserve-tokens", str(base.reserve_tokens)]
            work.finish(step, [*arguments, "--json", str(found)])
        except ChildFailedError as error:
            work.fail(step, error.message)
            continue
        result = read_result(found)
        found.unlink()
        reference = f"{step.name}@{result['digest']}"
        work.keep(step, {**result, "reference": reference}, time.monotonic() - started)


def train_runs(work: Work) -> None:
    """Train what is left, as many side by side as the study says, each as soon as what it starts from is there. A
    training that fails takes nothing with it but those that start from it."""
    running: dict[str, tuple[Child, Planned]] = {}
    with ExitStack() as stack:
        while True:
            waiting = [one.step for one in work.ready("runs") if one.step.id not in running]
            for step in waiting[: work.plan.study.at_once - len(running)]:
                child = stack.enter_context(_start(work, step))
                running[step.id] = child, step
            if not running:
                return
            for name, (child, step) in list(running.items()):
                code = child.poll()
                if code is None:
                    continue
                del running[name]
                if code:
                    work.fail(step, f"exit code {code}: {_reason(child)}")
                else:
                    _keep(work, step, time.monotonic() - child.started)
            work.progress.note(" | ".join(f"{child.name}: {' '.join(child.tail())}" for child, _ in running.values()))
            time.sleep(0.1)


def _start(work: Work, step: Planned) -> Child:
    run = work.plan.study.runs[step.name]
    output = work.place.training(step.name, step.digest)
    arguments = ["train", "run", work.plan.recipe(run), "--base", work.revision(step.after[0])]
    arguments += ["--registry", str(work.place.registry), "--publish", step.name]
    arguments += ["--output", str(output), "--resume", "--json", str(output) + ".json"]
    for setting in work.plan.settings(run):
        arguments += ["--set", setting]
    side_by_side = min(work.plan.study.at_once, max(1, len(work.ready("runs"))))
    return work.start(step, arguments, threads=max(1, cores() // side_by_side) if side_by_side > 1 else None)


def _reason(child: Child) -> str:
    """The line of a log that says what went wrong, else its last one."""
    lines = child.tail(12) or ["no word"]
    return next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])


def _keep(work: Work, step: Planned, seconds: float) -> None:
    result: dict[str, Any] = read_result(work.place.training(step.name, step.digest).with_name(_figures(work, step)))
    result["reference"] = f"{step.name}@{result['digest']}"
    result["validations"] = _validations(work.place.training(step.name, step.digest) / "history.jsonl")
    history = result.get("loss_history") or []
    last = f"loss {history[-1]['loss']:.3f} after {result['steps']} steps" if history else ""
    work.keep(step, result, seconds, last)


def _validations(file: Path) -> list[dict[str, Any]]:
    """The looks at the validation rows on the way: `step`, `validation_loss`, `seconds`."""
    if not file.is_file():
        return []
    lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "validation_loss" in line]


def _figures(work: Work, step: Planned) -> str:
    return work.place.training(step.name, step.digest).name + ".json"
