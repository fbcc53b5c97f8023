"""`loradeck bench train`: the trainer against a plain one."""

import tempfile
from pathlib import Path
from typing import Any

import click


@click.command("train")
@click.option("--json", "json_path", metavar="PATH", help="Write the result as JSON; - for standard output.")
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="Alternating rounds.")
@click.option("--rows", type=click.IntRange(32, 1800), default=640, show_default=True, help="Trained in a round.")
@click.option("--wide-steps", type=click.IntRange(1), default=4, show_default=True, help="Steps with 152k tokens.")
@click.option(
    "--ladder-rows", type=click.IntRange(16, 1800), default=192, show_default=True, help="For LoRA against full."
)
@click.option(
    "--batch-size", "batch_sizes", multiple=True, type=click.IntRange(1, 512), default=(4, 16), show_default=True,
    help="For LoRA against full; repeat.",
)  # fmt: skip
@click.option("--methods-only", is_flag=True, help="Only LoRA against full and what is stored, no plain trainer.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the children's folders and logs here."
)
def command(json_path: str | None, keep: Path | None, methods_only: bool, **sizes: Any) -> None:
    """Training speed, memory and loss against a plain Trainer with PEFT; LoRA against full.

    Batches of 16 in bf16 on the project's question answering set; about eight minutes on two cores.
    """
    from rich.console import Console

    from loradeck_bench.extra import TRAINING, require
    from loradeck_bench.output import ensure_writable, write_json
    from loradeck_bench.training.compare import TrainPlan, measure_methods, measure_training
    from loradeck_bench.training.tables import training_tables

    require(TRAINING)
    ensure_writable(json_path)
    said = Console(stderr=True)

    def say(line: str) -> None:
        said.print(line, highlight=False)

    with tempfile.TemporaryDirectory(prefix="loradeck-bench-train-") as temporary:
        measure = measure_methods if methods_only else measure_training
        result = measure(TrainPlan(**sizes), keep or Path(temporary), say)
    if json_path:
        write_json(result, json_path)
    console = Console(stderr=json_path == "-")
    for table in training_tables(result):
        console.print(table)
