"""What the tests of several devices run in processes of their own."""

import json
import os
from pathlib import Path

from rich.console import Console


def take_part(
    recipe: str, output: str, rank: int, size: int, port: int, sharding: str, resume: bool, hold: int
) -> None:
    """Run a recipe given as JSON as process `rank` of `size`; the first one writes `figures.json` beside `output`, and
    waits behind step `hold`, if that is not 0, until `go` is beside it too."""
    launcher = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launcher.items()})
    if sharding:
        os.environ[f"ACCELERATE_USE_{sharding.upper()}"] = "true"
    import torch

    from loradeck_train.follow import follow
    from loradeck_train.loop.world import join
    from loradeck_train.recipe.files import parse_recipe
    from loradeck_train.run import run
    from tests.train.holding import hold_behind

    torch.set_num_threads(1)
    parsed, folder = parse_recipe(json.loads(recipe)), Path(output)
    if hold and rank == 0:
        hold_behind(hold, folder.with_suffix(".go"))
    if not join().main:
        follow(parsed, None, folder, resume=resume)
        return
    report = run(parsed, None, folder, resume=resume, console=Console(quiet=True))
    figures = {
        "losses": [entry["loss"] for entry in report.result.history],
        "tokens": report.result.tokens,
        "looks": [entry["validation_loss"] for entry in report.result.looks],
        "validation_loss": report.result.validation_loss,
        "test_loss": report.result.test_loss,
        "best_step": report.result.best_step,
        "forgetting": report.result.forgetting,
        "files": [file.model_dump(mode="json") for file in report.manifest.files],
    }
    folder.with_suffix(".json").write_text(json.dumps(figures))
