"""`loradeck demo`: the whole story on this machine."""

from pathlib import Path

import click


@click.command()
@click.option("--base", metavar="REF", help="Base instead of the pocket base: hub:ORG/NAME, ORG/NAME or dir:FOLDER.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/demo"), show_default=True)
@click.option("--quick", is_flag=True, help="A smoke run of some minutes; its figures mean nothing.")
def command(base: str | None, output: Path, quick: bool) -> None:
    """Train, publish, serve, ask, evaluate, swap and load-test on this machine, and write a report."""
    import signal
    from types import FrameType

    from rich.console import Console

    from loradeck_bench.extra import ENGINE, METRICS, PAGES, TRAINING, require

    require(METRICS, PAGES, TRAINING, ENGINE)
    from loradeck_bench.demo.plan import DemoPlan, name_of_base
    from loradeck_bench.demo.story import Demo
    from loradeck_bench.report.units import duration

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Told to stop: end like Ctrl+C, children first. (Killed outright, the children end by themselves.)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    plan = DemoPlan(output=output, quick=quick)
    if base is not None:
        plan = DemoPlan(base=base, base_name=name_of_base(base), output=output, quick=quick)
    console = Console()
    demo = Demo(plan, console)
    page = demo.run()
    console.print(f"\nreport: [bold]{page}[/bold]  (and report.json beside it), {duration(demo.progress.seconds)}")
