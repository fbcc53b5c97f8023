"""One training run from recipe to revision: the composition of all other modules."""

import base64
import gc
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from loradeck_registry.errors import InvalidError
from loradeck_registry.manifest import Manifest
from loradeck_registry.registry import Registry, Revision
from loradeck_train.loop.checkpoints import open_output, remove_checkpoints
from loradeck_train.loop.disk import writing
from loradeck_train.loop.forgetting import FORGETTING, Forgetting
from loradeck_train.loop.memory import PeakMemory
from loradeck_train.loop.trainer import TrainingResult, train
from loradeck_train.loop.world import World
from loradeck_train.model.build import ModelSize, TrainingModel, build_model, put_together
from loradeck_train.model.loss import logprobs_at_end
from loradeck_train.plan.lint import refuse_unservable
from loradeck_train.prepare import Prepared, pad_token_id, prepare
from loradeck_train.publish.export import export
from loradeck_train.publish.proof import ReloadCheck, allowed_ids, choose_prompts, prove
from loradeck_train.publish.provenance import provenance
from loradeck_train.publish.push import MANIFEST, check_publishable, make_manifest, push
from loradeck_train.recipe.settings import Recipe

PUBLISHED = "published"
PICTURE = "run.png"
_PROBED = 4096


@dataclass(frozen=True)
class RunReport:
    """What a run produced. `folder` holds the files in the published format; `revision` is set if they were pushed."""

    manifest: Manifest
    folder: Path
    revision: Revision | None
    result: TrainingResult
    check: ReloadCheck
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Figures for programs."""
        record = self.manifest.provenance
        keys = (
            "method", "steps", "tokens", "tokens_per_second", "peak_bytes", "parameters", "trainable_parameters",
            "trainable_share", "validation_loss", "test_loss", "substitutions", "reload_check", "processes", "sharding",
            "loss_history",
        )  # fmt: skip
        return {
            "revision": str(self.revision) if self.revision else None,
            "digest": self.manifest.digest(),
            "bytes": self.manifest.size,
            "folder": str(self.folder),
            "seconds": round(self.seconds, 3),
            "training_seconds": record["seconds"],
            "probe_distance": (self.manifest.probe or {}).get("distance"),
            "truncated": record["data"]["truncated"],
        } | {key: record[key] for key in keys}


def run(
    recipe: Recipe,
    registry: Registry | None,
    output: Path,
    *,
    resume: bool = False,
    title: str = "training",
    console: Console | None = None,
) -> RunReport:
    """Train, export, prove and publish. Nothing is pushed unless the reloaded files answer as the trained model does.

    Raises LoradeckError of the part that failed; checkpoints, if the recipe asks for them, stay for `resume`.
    """
    started = time.monotonic()
    console = console or Console(stderr=True)
    if recipe.publish.name is not None and registry is None:
        raise InvalidError("to publish, name the registry with --registry", field="registry")
    if registry is not None:
        check_publishable(registry, recipe)
    prepared = prepare(recipe, registry)
    refuse_unservable(prepared)
    recipe = prepared.recipe
    checkpoint = open_output(output, prepared, resume)
    World.here().collect(None)  # The others wait for the folder (`follow`).
    if resume and checkpoint is None:
        console.print(f"no checkpoint in {output}: starting at the beginning", highlight=False, soft_wrap=True)
    for line in prepared.substitutions:
        console.print(f"substituted: {line}", highlight=False)
    for line in prepared.warnings:
        console.print(f"warning: {line}", highlight=False)
    if prepared.counts.truncated:
        console.print(
            f"{prepared.counts.truncated} of {prepared.counts.examples} examples are longer than "
            f"{prepared.max_length} tokens; their longest field was cut",
            highlight=False,
        )
    for name, leakage in prepared.data.leakage.items():
        if leakage.first is not None:
            console.print(leakage.sentence(name), highlight=False)
    folder = output / PUBLISHED
    shutil.rmtree(folder, ignore_errors=True)
    prompts = choose_prompts(
        prepared.validation or prepared.training[:_PROBED], recipe.publish.probe_prompts, recipe.seed
    )
    with writing("what was trained", output):
        size, result, trained, rounded, peak_bytes, fidelity = _train_and_export(
            prepared, output, folder, prompts, checkpoint, title, console
        )
    probe, check = prove(
        prompts,
        trained,
        prepared.task,
        prepared.tokenizer,
        prepared.base.identity.vocabulary,
        prepared.base.folder,
        folder,
        adapter=recipe.publishes == "adapter",
        dtype=recipe.publish.dtype,
        lossy=recipe.lossy,
        rounded=rounded,
    )
    manifest = make_manifest(prepared, folder, probe, provenance(prepared, size, result, check, peak_bytes, fidelity))
    (output / MANIFEST).write_bytes(manifest.canonical_json())
    if result.picture is not None:
        (output / PICTURE).write_bytes(result.picture)
    revision = push(registry, prepared, manifest, folder) if registry and recipe.publish.name else None
    if registry is not None and revision is not None and result.picture is not None:
        picture = base64.b64encode(result.picture).decode()
        registry.attach(
            revision, "note", {"text": "loss and memory by step", "media_type": "image/png", "data": picture}
        )
    remove_checkpoints(output)
    return RunReport(manifest, folder, revision, result, check, time.monotonic() - started)


def _train_and_export(
    prepared: Prepared,
    output: Path,
    folder: Path,
    prompts: list[list[int]],
    checkpoint: Path | None,
    title: str,
    console: Console,
) -> tuple[ModelSize, TrainingResult, list[torch.Tensor], list[torch.Tensor] | None, int, dict[str, float] | None]:
    """The part that holds the trained model; when it returns, the model's memory is free for the reload."""
    recipe = prepared.recipe
    forgetting: Forgetting | None = None
    if (source := recipe.evaluation.forgetting) is not None:
        forgetting = Forgetting(source, prepared.tokenizer, output / FORGETTING, bf16=recipe.precision == "bf16")

    def build() -> TrainingModel:
        return build_model(
            recipe, prepared.base.folder, prepared.task, prepared.counts.longest, prepared.tokenizer, prepared.training
        )

    with PeakMemory() as memory:
        trained = build()
        result = train(
            recipe,
            trained,
            prepared.training,
            prepared.validation,
            pad_token_id(prepared.tokenizer),
            prepared.max_length,
            output,
            test=prepared.test,
            forgetting=forgetting,
            resume_from=checkpoint,
            title=title,
            console=console,
        )
    whole = put_together(trained, build)
    assert whole is not None, "the first process publishes"
    trained = whole
    allowed = allowed_ids(prepared.task, prepared.base.identity.vocabulary)
    # As the reloaded model attends: in bfloat16 another way of attending is off by as much as a few steps of training.
    trained.causal.set_attn_implementation("sdpa")
    answers = logprobs_at_end(trained.model, prompts, allowed)
    size = trained.size
    fidelity = export(trained, prepared, folder)
    # To write a full checkpoint is to round all weights of the model, here in memory too.
    rounded = logprobs_at_end(trained.model, prompts, allowed) if recipe.method == "full" else None
    del trained, whole
    gc.collect()
    return size, result, answers, rounded, memory.peak_bytes, fidelity
