"""The other processes of a run on several devices: they train along, and leave telling and publishing to the first."""

import shutil
from pathlib import Path

from rich.console import Console

from loradeck_registry.registry import Registry
from loradeck_train.loop.checkpoints import newest_checkpoint
from loradeck_train.loop.forgetting import FORGETTING, Forgetting
from loradeck_train.loop.trainer import train
from loradeck_train.loop.validation import BEST
from loradeck_train.loop.world import World
from loradeck_train.model.build import TrainingModel, build_model, put_together
from loradeck_train.prepare import pad_token_id, prepare
from loradeck_train.recipe.settings import Recipe


def follow(recipe: Recipe, registry: Registry | None, output: Path, *, resume: bool = False) -> None:
    """Train `recipe` as one of several processes, without a trace of its own in `output`, which they all see.

    Raises what training raises.
    """
    prepared = prepare(recipe, registry)
    recipe = prepared.recipe
    # The first process has made the folder ready, or stopped all of them.
    World.here().collect(None)
    checkpoint = newest_checkpoint(output) if resume else None
    forgetting: Forgetting | None = None
    if (source := recipe.evaluation.forgetting) is not None:
        forgetting = Forgetting(source, prepared.tokenizer, output / FORGETTING, bf16=recipe.precision == "bf16")
    scratch = output / f".rank-{World.here().rank}"
    scratch.mkdir(parents=True, exist_ok=True)

    def build() -> TrainingModel:
        return build_model(
            recipe, prepared.base.folder, prepared.task, prepared.counts.longest, prepared.tokenizer, prepared.training
        )

    try:
        trained = build()
        train(
            recipe,
            trained,
            prepared.training,
            prepared.validation,
            pad_token_id(prepared.tokenizer),
            prepared.max_length,
            scratch,
            test=prepared.test,
            forgetting=forgetting,
            resume_from=checkpoint,
            best_folder=output / BEST,
            console=Console(quiet=True),
        )
        put_together(trained, build)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
