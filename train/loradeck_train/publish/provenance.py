"""What produced a revision, for its manifest: recipe, data, measurements, packages, hardware. No local paths."""

import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch

from loradeck_train.data.rows import describe_source
from loradeck_train.loop.trainer import TrainingResult
from loradeck_train.loop.world import World
from loradeck_train.model.build import ModelSize
from loradeck_train.prepare import Prepared
from loradeck_train.publish.proof import ReloadCheck
from loradeck_train.recipe.settings import Recipe

_PACKAGES = ("loradeck", "torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "bitsandbytes")


def provenance(
    prepared: Prepared,
    size: ModelSize,
    result: TrainingResult,
    check: ReloadCheck,
    peak_bytes: int,
    fidelity: dict[str, float] | None,
) -> dict[str, Any]:
    """The manifest's `provenance`: JSON values only. `seconds` is of the training loop, `peak_bytes` above the memory
    held before the model was loaded, `tokens` those of prompts and answers that went through the model, `conversion`
    what cutting DoRA to a LoRA of that rank kept of its squared norm."""
    return {
        "recipe": recipe_record(prepared.recipe, prepared.base.reference),
        "data": {
            "source": prepared.data.source,
            "digest": prepared.data.digest,
            "rows": len(prepared.data.training),
            "validation_rows": len(prepared.data.validation),
            "test_rows": len(prepared.data.test),
            "leakage": {name: found.as_json() for name, found in prepared.data.leakage.items()},
            "tasks": list(prepared.statistics),
            "prompt_tokens": prepared.counts.prompt,
            "answer_tokens": prepared.counts.answer,
            "longest": prepared.counts.longest,
            "truncated": prepared.counts.truncated,
        },
        "seed": prepared.recipe.seed,
        "method": prepared.recipe.method,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "tokens": result.tokens,
        "tokens_per_second": round(result.tokens_per_second, 1),
        "peak_bytes": peak_bytes,
        "parameters": size.parameters,
        "trainable_parameters": size.trainable_parameters,
        "trainable_share": round(size.trainable_share, 6),
        "loss_history": [
            {key: entry[key] for key in ("step", "loss", "learning_rate", "seconds")} for entry in result.history
        ],
        "validation_loss": result.validation_loss,
        "test_loss": result.test_loss,
        "validation_history": list(result.looks),
        "best_step": result.best_step,
        "stopped_early": result.stopped_early,
        "forgetting": result.forgetting,
        "processes": World.here().size,
        "sharding": World.here().sharding,
        "max_length": prepared.max_length,
        "attention": size.attention,
        "substitutions": list(prepared.substitutions),
        "warnings": list(prepared.warnings),
        "reload_check": asdict(check),
        **({} if fidelity is None else {"conversion": fidelity}),
        "packages": packages(),
        "hardware": hardware(),
    }


def recipe_record(recipe: Recipe, base: str) -> dict[str, Any]:
    """The resolved recipe as JSON, with file names instead of paths."""
    record = recipe.model_dump(mode="json", exclude_none=True)
    record["base"] = base
    record["data"]["source"] = describe_source(recipe.data.source)
    for name, part in (("validation", recipe.data.validation), ("test", recipe.data.test)):
        if part is not None and part.source is not None:
            record["data"][name]["source"] = describe_source(part.source)
    for written, mixed in zip(record["data"]["mixture"], recipe.data.mixture, strict=True):
        written["source"] = describe_source(mixed.source)
    if recipe.evaluation.forgetting is not None:
        record["evaluation"]["forgetting"] = describe_source(recipe.evaluation.forgetting)
    return record


def packages() -> dict[str, str]:
    """Versions of what took part."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version()}


def hardware() -> dict[str, Any]:
    """What it ran on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": gpu,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
