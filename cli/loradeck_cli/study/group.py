"""`loradeck study`: repeat a published study, step by step, and see what is left of one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loradeck_cli.study import data as study_data

if TYPE_CHECKING:
    from loradeck_bench.study.plan import Plan

WORK = Path("build/studies")


def study_options(function: Any) -> Any:
    """`--scale`, `--work`, `--base`, `--embedding-model`, `--judge`, `--judge-model`, `--json`."""
    for option in (
        click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for standard output."),
        click.option("--judge-model", metavar="NAME", help="Model to ask there."),
        click.option(
            "--judge", metavar="URL", help="OpenAI-compatible endpoint that scores answers; key as eval judge."
        ),
        click.option(
            "--embedding-model",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Folder of a sentence-transformers model, for BERTScore and semantic similarity.",
        ),
        click.option(
            "--base", "bases", multiple=True, metavar="NAME=REF", help="Another base: hub:ORG/NAME, dir:FOLDER."
        ),
        click.option(
            "--work",
            type=click.Path(path_type=Path),
            default=WORK,
            show_default=True,
            help="Folder of data, trainings, outcomes, reports.",
        ),
        click.option(
            "--scale",
            type=click.Choice(("pocket", "full")),
            default="pocket",
            show_default=True,
            help="The small base and cut data, or the publication's own base and sizes.",
        ),
    ):
        function = option(function)
    return function


@click.group()
def command() -> None:
    """Repeat a published study: train, serve, evaluate, tables and figures beside the published ones."""


@command.command()
@click.argument("study")
@study_options
@click.option("--no-checks", is_flag=True, help="Start although something is missing: what needs it fails.")
def run(study: str, no_checks: bool, json_path: str | None, **options: Any) -> None:
    """Do what is left of STUDY (a shipped name, or a file) and write report.html and report.json.

    Every step that was done is kept; a step is done again when what goes into it changes.
    """
    import signal
    from types import FrameType

    from rich.console import Console

    from loradeck_bench.extra import ENGINE, JUDGE, METRICS, PAGES, TRAINING, require

    require(METRICS, PAGES, TRAINING, ENGINE, *([JUDGE] if options["judge"] else []))
    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.report.units import duration
    from loradeck_bench.study.checks import missing_parts
    from loradeck_bench.study.outcomes import Outcomes
    from loradeck_bench.study.runner import run_study
    from loradeck_bench.study.state import State
    from loradeck_registry.errors import PreconditionError

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Told to stop: end like Ctrl+C, children first. (Killed outright, the children end by themselves.)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    ensure_writable(json_path)
    console = Console(stderr=json_path == "-")
    plan = _plan(study, **options)
    with plan.place.held():
        if options["scale"] == "full" and not no_checks:
            state = State(plan, Outcomes(plan.place.outcomes))
            missing = missing_parts(plan, state, lambda line: console.print(f"[dim]{line}[/dim]", highlight=False))
            _show_missing(console, missing)
            if missing:
                raise PreconditionError(
                    f"{len(missing)} things are missing for {study} at scale full (listed above); "
                    "--no-checks starts all the same",
                    reason="STUDY_NEEDS",
                )
        report, page = run_study(plan, console)
    console.print(f"\nreport: [bold]{page}[/bold]  (and report.json beside it), {duration(report['seconds'])} of steps")
    if json_path:
        write_json(report, json_path)


@command.command()
@click.argument("study")
@study_options
def plan(study: str, json_path: str | None, **options: Any) -> None:
    """Say what STUDY would do, how long it takes, and what is missing, with the command to get it; does nothing."""
    from rich.console import Console

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.study.checks import as_rows, missing_parts
    from loradeck_bench.study.outcomes import Outcomes
    from loradeck_bench.study.state import State

    ensure_writable(json_path)
    console = Console(stderr=json_path == "-")
    planned = _plan(study, **options)
    state = State(planned, Outcomes(planned.place.outcomes))
    missing = missing_parts(planned, state, lambda line: console.print(f"[dim]{line}[/dim]", highlight=False))
    # Planning the runs of a full study told how long each takes.
    state = State(planned, Outcomes(planned.place.outcomes))
    _show_state(console, state, reasons=False)
    _show_missing(console, missing)
    if json_path:
        write_json({**_state_json(state), "missing": as_rows(missing)}, json_path)


@command.command()
@click.argument("study")
@study_options
def status(study: str, json_path: str | None, **options: Any) -> None:
    """Say what of STUDY is done, what is left, and how long the rest takes."""
    from rich.console import Console

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.study.outcomes import Outcomes
    from loradeck_bench.study.state import State

    ensure_writable(json_path)
    planned = _plan(study, **options)
    state = State(planned, Outcomes(planned.place.outcomes))
    _show_state(Console(stderr=json_path == "-"), state)
    if json_path:
        write_json(_state_json(state), json_path)


@command.command("list")
@click.option("--json", "json_path", metavar="PATH", help="Write the list as JSON; - for standard output.")
def list_studies(json_path: str | None) -> None:
    """List the shipped studies."""
    from rich.console import Console
    from rich.table import Table

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.study.files import find_study, load_study, shipped_studies

    ensure_writable(json_path)
    rows = []
    for name in shipped_studies():
        study = load_study(find_study(name), "pocket")
        rows.append(
            {"study": name, "title": study.title, "runs": len(study.runs), "evaluations": len(study.evaluations)}
        )
    table = Table("study", "title", "runs", "evaluations", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(stderr=json_path == "-").print(table)
    if json_path:
        write_json({"studies": rows}, json_path)


def _plan(
    study: str,
    scale: Any,
    work: Path,
    bases: tuple[str, ...],
    embedding_model: Path | None,
    judge: str | None,
    judge_model: str | None,
) -> "Plan":
    from collections.abc import Mapping, Sequence

    from loradeck_bench.study.files import find_study, load_study
    from loradeck_bench.study.place import Place
    from loradeck_bench.study.plan import Judge, Plan
    from loradeck_train.recipe.files import load_recipe

    if (judge is None) != (judge_model is None):
        raise click.UsageError("--judge and --judge-model belong together")

    def resolve(text: str, sets: Sequence[str]) -> Mapping[str, Any]:
        return load_recipe(text, sets=sets).model_dump(mode="json", exclude_none=True)

    file = find_study(study)
    loaded = load_study(file, scale)
    for item in bases:
        name, separator, reference = item.partition("=")
        if not separator or name not in loaded.bases:
            raise click.UsageError(f"--base {item}: say NAME=REF, where NAME is one of {', '.join(loaded.bases)}")
        changed = loaded.bases[name].model_copy(update={"source": reference})
        loaded = loaded.model_copy(update={"bases": {**loaded.bases, name: changed}})
    if embedding_model is not None:
        from loradeck_bench.evaluation.metrics import MetricSettings, choose

        choose((), MetricSettings(embedding_model))  # a folder without a model is told before anything is trained
    asked = Judge(judge, judge_model) if judge is not None and judge_model is not None else None
    return Plan(loaded, file, Place(work, file.stem, scale), resolve, asked, embedding_model)


def _state_json(state: Any) -> dict[str, Any]:
    seconds, unknown = state.seconds_left()
    return {
        "study": state.plan.place.study,
        "scale": state.plan.place.scale,
        "seconds_left": seconds,
        "steps_of_unknown_length": unknown,
        "steps": [
            {
                "step": one.step.id,
                "title": one.step.title,
                "state": one.state,
                "why": one.why,
                "seconds": one.outcome.seconds if one.outcome else None,
                "estimate": one.estimate,
            }
            for one in state.steps.values()
        ],
    }


def _show_state(console: Any, state: Any, *, reasons: bool = True) -> None:
    from rich.table import Table

    from loradeck_bench.report.units import duration

    table = Table("step", "state", "took", "expected", box=None, pad_edge=False)
    for one in state.steps.values():
        took = duration(one.outcome.seconds) if one.outcome else ""
        table.add_row(one.step.id, one.state, took, duration(one.estimate) if one.estimate else "")
    console.print(table)
    seconds, unknown = state.seconds_left()
    blocked_steps = sum(one.state == "blocked" for one in state.steps.values())
    counted = f"{len(state.left())} of {len(state.steps)} steps left"
    counted += f", {blocked_steps} blocked" if blocked_steps else ""
    known = f", about {duration(seconds)}" if seconds else ""
    more = f", and {unknown} of unknown length" if unknown else ""
    console.print(f"{counted}{known}{more}", highlight=False)
    blocked = dict.fromkeys(one.step.blocked for one in state.steps.values() if one.state == "blocked")
    for reason in filter(None, blocked if reasons else ()):
        console.print(f"blocked: {reason}", highlight=False, markup=False, soft_wrap=True)


def _show_missing(console: Any, missing: Any) -> None:
    for one in missing:
        console.print(f"missing: {one.what}\n         get it: {one.get}", highlight=False, markup=False, soft_wrap=True)


command.add_command(study_data.command)
