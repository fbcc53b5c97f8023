"""`loradeck bench client`: how many requests per second one client process of a load test sends."""

from typing import TYPE_CHECKING, Any

import click

from loradeck_cli.number import Number

if TYPE_CHECKING:
    from loradeck_bench.load.client.speed import ClientStep


@click.command()
@click.option("--start", type=Number(min=1), default=200.0, show_default=True, help="First rate, requests/s.")
@click.option("--factor", type=Number(min=1.01), default=1.4, show_default=True, help="From step to step.")
@click.option("--steps", type=click.IntRange(1), default=12, show_default=True, help="Most steps of each kind.")
@click.option("--seconds", type=Number(0.2), default=4.0, show_default=True, help="Of a step.")
@click.option("--chunks", type=click.IntRange(1), default=32, show_default=True, help="Messages of a stream.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Client processes.")
@click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for standard output.")
def client(json_path: str | None, **sizes: Any) -> None:
    """Raise the rate on a server that answers at once, until the client itself is the bottleneck."""
    from rich.console import Console

    from loradeck_bench.load.client.speed import ClientPlan, measure_client
    from loradeck_bench.loop import run_fast
    from loradeck_bench.output import ensure_writable, write_json

    ensure_writable(json_path)
    console = Console(stderr=json_path == "-")

    def show(kind: str, step: "ClientStep") -> None:
        limit = f": the {step.limit} is at its limit" if step.limit else ""
        console.print(
            f"{kind:>6} {step.rate:6.0f}/s: {step.answered_per_second:6.0f} answered, {step.cpu_share:4.0%} of a core, "
            f"late {step.delay_p99_ms:.1f} ms, event loop {step.lag_p99_ms:.1f} ms (p99){limit}",
            highlight=False,
            soft_wrap=True,
        )

    result = run_fast(measure_client(ClientPlan(**sizes), show))
    for kind, found in result["kinds"].items():
        rate = found["requests_per_second"]
        held = "none of these rates" if rate is None else f"{rate:.0f} requests/s"
        more = " or more: the answering server was at its limit first" if found["limit"] == "server" else ""
        more = more or (" or more: no step was too much" if not found["limit"] else "")
        console.print(f"{kind}: the client is not the bottleneck at {held}{more}", highlight=False)
    if json_path:
        write_json(result, json_path)
