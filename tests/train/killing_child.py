"""What the tests of killing run in processes of their own."""

import json
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from loradeck_registry.errors import LoradeckError
from loradeck_train.loop.interrupting import InterruptedTraining
from loradeck_train.loop.sealing import write_checkpoint
from loradeck_train.recipe.files import parse_recipe
from loradeck_train.run import run
from tests.train.holding import hold_behind


def train(recipe: str, output: str, largest_file: int | None = None, hold: int = 0) -> None:
    """Run a recipe given as JSON, resumed if there is something to resume. Exit codes: 0 done, 3 interrupted, 4 refused
    with its reason in `error.txt`. `largest_file` is the process's limit in bytes, as a disk that is full. Waits behind
    step `hold`, if that is not 0, until OUTPUT/go is there."""
    import resource

    import torch

    torch.set_num_threads(1)
    folder = Path(output)
    folder.mkdir(exist_ok=True)
    if hold:
        hold_behind(hold, folder / "go")
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    try:
        report = run(parse_recipe(json.loads(recipe)), None, folder / "out", resume=True, console=Console(quiet=True))
    except InterruptedTraining as error:
        (folder / "error.txt").write_text(str(error))
        sys.exit(3)
    except LoradeckError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (folder / "error.txt").write_text(f"{error.reason}: {error.message}")
        sys.exit(4)
    figures = {
        "losses": [entry["loss"] for entry in report.result.history],
        "files": [file.model_dump(mode="json") for file in report.manifest.files],
        "tokens": report.result.tokens,
        "looks": [entry["validation_loss"] for entry in report.result.looks],
        "best_step": report.result.best_step,
    }
    (folder / "figures.json").write_text(json.dumps(figures))


def die_while_writing(folder: str, after: int) -> None:
    """Write a checkpoint of five files, and be killed after `after` of them."""

    def write(aside: Path) -> None:
        for number in range(5):
            if number == after:
                os.kill(os.getpid(), signal.SIGKILL)
            (aside / f"{number}.bin").write_bytes(b"x" * 1000)

    write_checkpoint(Path(folder), 2, write)
