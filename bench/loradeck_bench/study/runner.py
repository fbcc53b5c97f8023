"""Runs what is left of a study and writes its report, whatever happens."""

from pathlib import Path

from rich.console import Console

from loradeck_bench.demo.progress import Progress
from loradeck_bench.report.units import duration
from loradeck_bench.study.evaluations import ask_server, evaluations_of, run_without_server
from loradeck_bench.study.outcomes import Outcomes
from loradeck_bench.study.plan import Plan
from loradeck_bench.study.report import Report, make_report, write_report
from loradeck_bench.study.state import State
from loradeck_bench.study.trainings import add_bases, train_runs
from loradeck_bench.study.work import Work
from loradeck_registry.errors import LoradeckError

BASES, RUNS, OTHERS, REPORT = "Add the bases", "Train", "Measure without a server", "Write the report"


class StudyFailedError(LoradeckError):
    """Some steps of a study failed; the others were done, and the report says which."""

    reason = "STUDY_FAILED"


def run_study(plan: Plan, console: Console) -> tuple[Report, Path]:
    """Do what is left of a study, step by step, and write report.json and report.html.

    A step that fails takes nothing with it but what depends on it. Raises StudyFailedError at the end if one did, and
    whatever broke the run off; the report of what is there is written before.
    """
    outcomes = Outcomes(plan.place.outcomes)
    servers = [f"Serve {name}" for name in plan.study.servers]
    progress = Progress(console, [BASES, RUNS, *servers, OTHERS, REPORT])
    work = Work(plan, outcomes, progress)
    _announce(work.state, progress)
    try:
        with progress.step(BASES):
            add_bases(work)
        if work.ready("runs"):
            with progress.step(RUNS):
                train_runs(work)
        for name in plan.study.servers:
            if evaluations_of(work, name):
                with progress.step(f"Serve {name}"):
                    ask_server(work, name)
        if work.ready("evaluations"):
            with progress.step(OTHERS):
                run_without_server(work)
    except KeyboardInterrupt:
        _, page = _write(work, "interrupted.")
        raise KeyboardInterrupt(f"interrupted; the same command does the rest; what is there: {page}") from None
    except Exception as error:
        _write(work, f"{str(error).splitlines()[0]}.")
        raise
    failed = "; ".join(f"{step}: {why}" for step, why in work.failed.items())
    with progress.step(REPORT):
        report, page = _write(work, f"failed: {failed}." if failed else "")
    if failed:
        raise StudyFailedError(
            f"{len(work.failed)} steps failed: {failed}\nthe report of the rest: {page}; logs: {plan.place.logs}"
        )
    return report, page


def _write(work: Work, unfinished: str) -> tuple[Report, Path]:
    report, pictures = make_report(work.plan, work.state, work.failed, unfinished)
    return report, write_report(report, pictures, work.place.root)


def _announce(state: State, progress: Progress) -> None:
    left, (seconds, unknown) = state.left(), state.seconds_left()
    done = sum(one.state == "done" for one in state.steps.values())
    about = f", about {duration(seconds)}" if seconds else ""
    rest = f" and {unknown} steps of unknown length" if unknown and seconds else ""
    progress.console.print(f"{len(left)} of {len(state.steps)} steps left, {done} done{about}{rest}", highlight=False)
    for why in dict.fromkeys(one.step.blocked for one in state.steps.values() if one.state == "blocked"):
        if why:
            progress.console.print(f"left out: {why}", highlight=False, markup=False, soft_wrap=True)
