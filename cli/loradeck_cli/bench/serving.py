"""`loradeck bench multilora | frontend | classify | cliff`, and `swap` alone: they need nothing but a base."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from loradeck_cli.number import Number

F = TypeVar("F", bound=Callable[..., Any])


def _common(function: F) -> F:
    """Options that all of them have."""
    for option in (
        click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for standard output."),
        click.option("--base", type=click.Path(path_type=Path), help="Folder of a base [default: the pocket base]."),
    ):
        function = option(function)
    return function


@click.command()
@_common
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="Alternating rounds.")
@click.option("--replies", type=click.IntRange(0), default=1000, show_default=True, help="Compared with golden ones.")
@click.option("--compiled/--eager", default=True, show_default=True, help="Compile the engine with adapters too.")
@click.option("--stock/--no-stock", default=True, show_default=True, help="Compare with stock vLLM's operations.")
@click.option("--bare/--no-bare", default=True, show_default=True, help="Compare with an engine without LoRA.")
@click.option("--concurrency", type=click.IntRange(1), default=64, show_default=True, help="Requests at once.")
@click.option("--output-tokens", type=click.IntRange(8), default=64, show_default=True, help="Of each request.")
def multilora(base: Path | None, json_path: str | None, **sizes: Any) -> None:
    """Throughput with adapters against the base, an engine without LoRA, and stock vLLM."""
    from loradeck_bench.serving.multilora import MultiloraPlan, measure_multilora
    from loradeck_bench.serving.tables import multilora_table

    _run(measure_multilora, MultiloraPlan(**sizes), multilora_table, base, json_path)


@click.command()
@_common
@click.option("--seconds", type=Number(1), default=30.0, show_default=True, help="For each row.")
@click.option("--slots", type=click.IntRange(1, 64), default=32, show_default=True, help="Adapters in one batch.")
@click.option("--saturation-seconds", type=Number(1), default=8.0, show_default=True, help="To find the saturation.")
def cliff(base: Path | None, json_path: str | None, **sizes: Any) -> None:
    """Time to first token with 1, 4 and 16 times as many adapters as slots, at 60 % of saturation."""
    from loradeck_bench.serving.cliff import CliffPlan, measure_cliff
    from loradeck_bench.serving.tables import cliff_table

    _run(measure_cliff, CliffPlan(**sizes), cliff_table, base, json_path)


@click.command()
@_common
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="Alternating rounds.")
@click.option(
    "--compiled/--eager", default=True, show_default=True, help="Compile the engines, as vLLM does without adapters."
)
def frontend(base: Path | None, json_path: str | None, **sizes: Any) -> None:
    """The gRPC door against the engine in process and against vLLM's HTTP server, on the base."""
    from loradeck_bench.serving.frontend import FrontendPlan, measure_frontend
    from loradeck_bench.serving.tables import frontend_table

    _run(measure_frontend, FrontendPlan(**sizes), frontend_table, base, json_path)


@click.command()
@_common
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="Alternating rounds.")
def classify(base: Path | None, json_path: str | None, rounds: int) -> None:
    """A label in one pass against generating its 3 or 4 tokens as text, on one server."""
    from loradeck_bench.serving.classify import ClassifyPlan, measure_classify
    from loradeck_bench.serving.tables import classify_table

    _run(measure_classify, ClassifyPlan(rounds=rounds), classify_table, base, json_path)


def swap_alone(flips: int, seconds: float, base: Path | None, json_path: str | None) -> dict[str, Any]:
    """Flips under load on a server that is started for it, after `seconds` of load without; returns the result."""
    from loradeck_bench.serving.flips import FlipPlan, measure_flips
    from loradeck_bench.serving.tables import flips_table

    return _run(measure_flips, FlipPlan(flips=flips, before=seconds), flips_table, base, json_path)


def _run(
    measure: Callable[..., dict[str, Any]],
    plan: Any,
    table: Callable[[dict[str, Any]], Any],
    base: Path | None,
    json_path: str | None,
) -> dict[str, Any]:
    from rich.console import Console

    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_pocket import BASE

    ensure_writable(json_path)
    console = Console(stderr=json_path == "-")
    result = measure(base or BASE, plan, console)
    if json_path:
        write_json(result, json_path)
    console.print(table(result))
    return result
