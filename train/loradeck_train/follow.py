"""The other processes of a run on several devices: they train along, and leave telling and publishing to the first."""

import shutil
from pathlib import Path

from rich.console import Console

from loradeck_registry.registry import Registry
from loradeck_train.loop.checkpoints import newest_checkpoint
from loradeck_train.loop.trainer import train
from loradeck_train.loop.world import World
from loradeck_train.model.build import build_model
from loradeck_train.prepare import pad_token_id, prepare
from loradeck_train.recipe.settings import Recipe


def follow(recipe: Recipe, registry: Registry | None, output: Path, *, resume: bool = False) -> None:
    """Train `recipe` as one of several processes, without a trace of its own in `output`.

    Raises what training raises.
    """
    prepared = prepare(recipe, registry)
    checkpoint = newest_checkpoint(output) if resume else None
    scratch = output / f".rank-{World.here().rank}"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        trained = build_model(
            prepared.recipe,
            prepared.base.folder,
            prepared.task,
            prepared.counts.longest,
            prepared.tokenizer,
            prepared.training,
        )
        train(
            prepared.recipe,
            trained,
            prepared.training,
            prepared.validation,
            pad_token_id(prepared.tokenizer),
            prepared.max_length,
            scratch,
            resume_from=checkpoint,
            console=Console(quiet=True),
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
