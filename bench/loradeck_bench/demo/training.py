"""Trainings of the demo: the commands, and what the manifests of their revisions tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loradeck_bench.demo.plan import Training
from loradeck_bench.demo.workplace import Workplace
from loradeck_registry.manifest import Manifest
from loradeck_registry.registry import Registry, Revision


def train_command(workplace: Workplace, training: Training, base: str, *, publish: bool = True) -> list[str]:
    """`loradeck train run …` for one training; without `publish` the result stays in its output folder."""
    command = ["train", "run", training.recipe, "--base", base, "--registry", str(workplace.registry)]
    if publish:
        command += ["--publish", training.publish]
    command += ["--output", str(output_folder(workplace, training))]
    for key, value in training.settings.items():
        command += ["--set", f"{key}={value}"]
    return command


def output_folder(workplace: Workplace, training: Training) -> Path:
    """Where a training works."""
    seed = training.settings.get("seed", "0")
    return workplace.output / "training" / f"{training.publish.partition('@')[0]}-seed{seed}"


def push_output(registry: Registry, name: str, folder: Path) -> Revision:
    """Publish what a training left in its output folder as the next revision of `name`, without moving an alias."""
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    files = {file.path: folder / "published" / file.path for file in manifest.files}
    return registry.push(name, manifest, files, reason="second revision of the demo")


def training_record(revision: Revision) -> dict[str, Any]:
    """How a revision was trained, from its manifest, in the form of report files."""
    record = revision.manifest.provenance
    history: Sequence[dict[str, Any]] = record.get("loss_history", [])
    keys = ("method", "steps", "seconds", "tokens_per_second", "peak_bytes", "trainable_parameters", "trainable_share")
    return {
        **{key: record.get(key) for key in keys},
        "seed": record.get("seed"),
        "validation_loss": record.get("validation_loss"),
        "last_loss": history[-1]["loss"] if history else None,
        "loss_history": [{"step": entry["step"], "loss": entry["loss"]} for entry in history],
        "recipe": record.get("recipe"),
    }
