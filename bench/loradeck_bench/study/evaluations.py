"""Evaluations of a study: servers that are up while they are asked, and `loradeck eval` as child processes."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loradeck_bench.children import ChildFailedError
from loradeck_bench.demo.server import Server, serving
from loradeck_bench.demo.workplace import Workplace
from loradeck_bench.study.format.work import Command, Compared, Judged, Loss, Served
from loradeck_bench.study.inputs import as_sets, fill
from loradeck_bench.study.plan import Planned
from loradeck_bench.study.work import Work, read_result
from loradeck_registry.errors import LoradeckError


def evaluations_of(work: Work, server: str) -> list[Planned]:
    """What is left to ask this server, and can be asked."""
    every = work.plan.study.evaluations
    ready = [one.step for one in work.ready("evaluations")]
    return [step for step in ready if isinstance(one := every[step.name], Served) and one.server == server]


def ask_server(work: Work, name: str) -> None:
    """Start a server and ask it all that is left. A server that does not come up fails its evaluations."""
    steps = evaluations_of(work, name)
    settings = work.plan.study.servers[name].set
    base = work.revision(steps[0].after[0])
    environment = {"LORADECK_CACHE": str((work.place.root / "cache").absolute())}
    workplace = Workplace(work.place.root, work.progress, environment)
    try:
        with serving(workplace, base, f"serve {name}", as_sets(settings)) as server:
            for step in steps:
                _served(work, step, server)
    except LoradeckError as error:
        for step in steps:
            if work.state.steps[step.id].state != "done" and step.id not in work.failed:
                work.fail(step, error.message)


def run_without_server(work: Work) -> None:
    """Everything else that is left and can be done; what looks at other results comes last in the plan."""
    tried: set[str] = set()
    while steps := [one.step for one in work.ready("evaluations") if one.step.id not in tried]:
        for step in steps:
            tried.add(step.id)
            one = work.plan.study.evaluations[step.name]
            if not isinstance(one, Served):
                _measure(work, step, _arguments(work, one), full=isinstance(one, Command))


def _served(work: Work, step: Planned, server: Server) -> None:
    one = work.plan.study.evaluations[step.name]
    assert isinstance(one, Served)
    arguments = ["eval", "run", "--server", server.address, *_data(work, one), "--concurrency", str(one.concurrency)]
    if one.of is None:
        arguments.append("--base")
    else:
        # The figures go to the revision that was asked, as whoever evaluates by hand would have them.
        arguments += ["--adapter", work.revision(f"runs/{one.of}"), "--attach", "--registry", str(work.place.registry)]
    if one.max_tokens is not None:
        arguments += ["--max-tokens", str(one.max_tokens)]
    if one.template is not None:
        arguments += ["--template", one.template]
    for metric in one.metrics:
        arguments += ["--metric", metric]
    if one.embedding and work.plan.embedding_model is not None:
        arguments += ["--embedding-model", str(work.plan.embedding_model)]
    _measure(work, step, [*arguments, *fill(one.options, work.plan.names())])


def _arguments(work: Work, one: Any) -> list[str]:
    """The command of an evaluation that needs no server."""
    if isinstance(one, Loss):
        arguments = ["eval", "loss", *_data(work, one), "--over", one.over, "--registry", str(work.place.registry)]
        if one.of is not None:
            arguments += ["--adapter", work.revision(f"runs/{one.of}"), "--attach"]
        if one.base is not None or one.of is None:
            arguments += ["--base", work.revision(f"bases/{work.plan.study.base_of(one.base)}")]
        return [*arguments, *(["--max-length", str(one.max_length)] if one.max_length else [])]
    if isinstance(one, Judged):
        judge = work.plan.judge
        assert judge is not None
        cache = work.place.root / "judge.sqlite"
        return [
            "eval", "judge", _answers(work, one.of), "--endpoint", judge.endpoint, "--model", judge.model,
            "--cache", str(cache), *fill(one.options, work.plan.names()),
        ]  # fmt: skip
    if isinstance(one, Compared):
        arguments = ["eval", "compare", *(_answers(work, other) for other in one.of)]
        for metric in one.metrics:
            arguments += ["--metric", metric]
        return arguments
    assert isinstance(one, Command)
    return list(fill(one.command, work.plan.names()))


def _data(work: Work, one: Served | Loss) -> list[str]:
    source = work.plan.sources[one.data]
    assert source is not None
    arguments = ["--task", one.task, "--data", str(source.of(one.split))]
    for field, column in source.columns.items():
        arguments += ["--column", f"{field}={column}"]
    if one.limit is not None:
        arguments += ["--limit", str(one.limit)]
    return arguments


def _answers(work: Work, evaluation: str) -> str:
    return str(work.place.answers(evaluation, work.plan.steps[f"evaluations/{evaluation}"].digest))


def _measure(work: Work, step: Planned, arguments: list[str], *, full: bool = False) -> None:
    """Run a command that writes `--json`, keep its figures; single answers stay in its own file unless `full`."""
    file = work.place.answers(step.name, step.digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        work.finish(step, [*arguments, "--json", str(file)])
    except ChildFailedError as error:
        work.fail(step, error.message)
        return
    result = read_result(file)
    kept = result if full else {key: value for key, value in result.items() if key != "items"}
    work.keep(step, {**kept, "file": _relative(file, work.place.root)}, time.monotonic() - started, _headline(kept))


def _relative(file: Path, root: Path) -> str:
    return str(file.relative_to(root))


def _headline(result: Mapping[str, Any]) -> str:
    shown = [
        key for key in ("accuracy", "macro_f1", "rouge_1", "chrf", "perplexity") if key in result.get("methods", ())
    ]
    return ", ".join(f"{key} {result[key]:.3f}" for key in shown[:2])
