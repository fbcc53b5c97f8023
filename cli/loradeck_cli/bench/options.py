"""Options that load tests share: whom to ask, in which shape, what to make of the answers, where to write."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loradeck_cli.number import Number

if TYPE_CHECKING:
    from rich.console import Console

    from loradeck_bench.load.figures.objective import Objective
    from loradeck_bench.load.plan import LoadPlan, Subject
    from loradeck_bench.load.session import Session

TASKS = ("classification", "short_qa", "long_qa", "generate")
POSITIVE = Number(min=0, min_open=True)
Command = Callable[..., None]


def subject_options(function: Command) -> Command:
    """Whom to ask for what, and how requests are spread; `read_subjects` reads the first part."""
    for option in (
        click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for stdout."),
        click.option("--timeout", type=Number(min=0.1), default=120.0, show_default=True, help="Seconds."),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Limit of an answer [48 short, 192 long]."),
        click.option(
            "--warm-up", type=click.IntRange(min=0), default=1, show_default=True, help="Unmeasured requests to each."
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="Of arrivals and choices."),
        click.option(
            "--popularity", default="uniform", show_default=True,
            help="uniform, round_robin, zipf:S, geometric:A, power:A, weights:W1,W2,…|FILE.json, drift:SECONDS:LAW.",
        ),
        click.option("--arrivals", default="poisson", show_default=True, help="poisson, constant or gamma:CV."),
        click.option("--data", metavar="PATH", help="Rows to send [default: the task's own test set]."),
        click.option("--task", type=click.Choice(TASKS), help="Task of the base, and of adapters that name none."),
        click.option("--base", "with_base", is_flag=True, help="Ask the base too, with --task."),
        click.option("--adapter", "adapters", multiple=True, metavar="REF[=TASK]", help="Adapter to ask; repeat."),
        click.option("--server", "address", default="127.0.0.1:8500", show_default=True, metavar="HOST:PORT"),
    ):  # fmt: skip
        function = option(function)
    return function


def shape_options(function: Command) -> Command:
    """The shape of one load; `read_plan` reads it."""
    for option in (
        click.option("--max-in-flight", type=click.IntRange(min=1), help="Open loop: a client pool of this size."),
        click.option("--concurrency", type=click.IntRange(1, 4096), help="Closed loop: requests under way at a time."),
        click.option(
            "--token-scale", type=POSITIVE, default=1.0, show_default=True, help="Answers so many times as long."
        ),
        click.option("--speed", type=POSITIVE, default=1.0, show_default=True, help="Replay so many times as fast."),
        click.option("--trace", type=click.Path(path_type=Path), help="Open loop: replay a CSV trace of Azure's form."),
        click.option("--rates", metavar="A:B or A,B,…", help="Open loop: a ramp from A to B, or steps."),
        click.option("--rate", type=POSITIVE, help="Open loop: requests per second."),
    ):
        function = option(function)
    return function


def session_options(function: Command) -> Command:
    """How plans are sent and answers scored; `read_session` reads it."""
    for option in (
        click.option("--html", "html_path", metavar="PATH", help="Write a self-contained page."),
        click.option("--records", "records_path", metavar="PATH", help="One line of JSON per request, as they end."),
        click.option("--quality/--no-quality", default=True, show_default=True, help="Score the answers."),
        click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Of answers; as `eval run` has them."),
        click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Client processes."),
    ):
        function = option(function)
    return function


def read_subjects(options: dict[str, Any]) -> "dict[str, Subject]":
    """Whom `subject_options` name, with their rows. Raises UsageError without anybody."""
    from loradeck_bench.load.subjects import subjects

    if not options["adapters"] and not options["with_base"]:
        raise click.UsageError("name at least one --adapter, or --base")
    asked = [*options["adapters"], *([""] if options["with_base"] else [])]
    return subjects(asked, options["task"], options["data"], options["max_tokens"])


def read_plan(options: dict[str, Any], subjects: "dict[str, Subject]", duration: float) -> "LoadPlan":
    """The plan of `shape_options` and `subject_options`. Raises UsageError unless one shape is given."""
    from loradeck_bench.load.plan import LoadPlan
    from loradeck_bench.load.shape.profile import RateProfile
    from loradeck_bench.load.shape.trace import read_trace

    if sum(options[name] is not None for name in ("rate", "rates", "trace", "concurrency")) != 1:
        raise click.UsageError("give one of --rate, --rates, --trace and --concurrency")
    trace, rates = options["trace"], options["rates"]
    return LoadPlan(
        subjects,
        duration,
        options["rate"],
        options["concurrency"],
        RateProfile.parse(rates, duration) if rates is not None else None,
        read_trace(trace, options["speed"], options["token_scale"]) if trace is not None else None,
        options["arrivals"],
        options["popularity"],
        options["seed"],
        options["max_in_flight"],
        options["warm_up"],
    )


def read_session(
    options: dict[str, Any], subjects: "dict[str, Subject]", objective: "Objective | None", console: "Console"
) -> "Session":
    """The session of `session_options`. Raises NotFoundError for an unknown metric, PreconditionError where a library
    is missing for what was asked for."""
    from loradeck_bench.asking import Asking
    from loradeck_bench.extra import METRICS, PAGES, missing, require
    from loradeck_bench.load.session import Session

    if options["html_path"]:
        require(PAGES)
    metrics = None
    if options["quality"] and (options["metrics"] or not missing(METRICS)):
        require(METRICS)
        from loradeck_bench.evaluation.metrics import choose

        metrics = choose(options["metrics"])
    elif options["quality"]:
        console.print("answers are not scored: that needs the extra bench, pip install 'loradeck\\[bench]'")
    asking = Asking(options["address"], subjects, options["timeout"])
    return Session(asking, options["processes"], objective, metrics)


def run_load_test(work: Any) -> Any:
    """Run a coroutine on the fast event loop. An interrupted one that returns what it has is no error here."""
    from loradeck_bench.loop import run_fast

    try:
        return run_fast(work)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
