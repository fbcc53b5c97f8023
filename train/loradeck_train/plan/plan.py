"""The plan of a run: what it would train, what it would need, and whether the result could be served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loradeck_registry.bases.known import known_base
from loradeck_registry.registry import Registry
from loradeck_train.loop.schedule import Schedule
from loradeck_train.model.loading import attention_for
from loradeck_train.plan.devices import Device, named_gpu, this_machine
from loradeck_train.plan.lint import needs_of, problems_of
from loradeck_train.plan.memory import Memory, estimate_memory
from loradeck_train.plan.parameters import ParameterCounts, count_parameters
from loradeck_train.plan.setting import Setting, find_setting
from loradeck_train.plan.simulation import Step
from loradeck_train.plan.timing import Pace, pace_of
from loradeck_train.plan.work import flops_per_step
from loradeck_train.recipe.lora import LoraSettings
from loradeck_train.recipe.settings import Recipe

_BYTES = {"bfloat16": 2, "float32": 4}
_BATCH_SIZES = (1, 4, 16, 64)
_HEADROOM = 0.95


@dataclass(frozen=True)
class Alternative:
    """Another method or batch size, and what it would need."""

    method: str
    batch_size: int
    peak_bytes: int
    tokens_per_second: float
    fits: bool


@dataclass(frozen=True)
class Plan:
    """Figures of a run before it starts. `published_bytes` counts tensors only."""

    setting: Setting
    device: Device
    counts: ParameterCounts
    schedule: Schedule
    memory: Memory
    step: Step
    seconds_per_step: float
    alternatives: tuple[Alternative, ...]
    needs: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the peak leaves a twentieth of the device's memory free."""
        return self.memory.peak <= _HEADROOM * self.device.memory_bytes

    def as_json(self) -> dict[str, Any]:
        """Figures for programs."""
        setting, recipe = self.setting, self.setting.recipe
        tokens = sum(length for length, _ in setting.lengths)
        prepared = setting.prepared
        read: dict[str, Any] = {}
        if prepared is not None:
            read = {
                "validation_rows": len(prepared.validation),
                "data_digest": prepared.data.digest,
                "labels": list(prepared.data.labels),
                "longest": prepared.counts.longest,
                "truncated": prepared.counts.truncated,
                "prompt_tokens": prepared.counts.prompt,
                "answer_tokens": prepared.counts.answer,
                "statistics": list(prepared.statistics),
            }
        return {
            "base": setting.reference,
            "stated": prepared is None,
            "method": recipe.method,
            "publishes": recipe.publishes,
            "parameters": setting.parameters,
            "trainable_parameters": self.counts.trained,
            "trainable_share": round(self.counts.trained / setting.parameters, 6),
            "published_bytes": self.counts.stored * _BYTES[recipe.publish.dtype],
            "rows": len(setting.lengths),
            **read,
            "added_tokens": len(setting.task.added_tokens),
            "max_length": setting.max_length,
            "steps": self.schedule.steps,
            "steps_per_epoch": self.schedule.steps_per_epoch,
            "tokens": round(tokens * self.schedule.steps / self.schedule.steps_per_epoch),
            "device": self.device.name,
            "device_memory_bytes": self.device.memory_bytes,
            "memory": self.memory.as_json(),
            "fits": self.fits,
            "seconds_per_step": round(self.seconds_per_step, 4),
            "seconds": round(self.seconds_per_step * self.schedule.steps, 1),
            "alternatives": [vars(found) for found in self.alternatives],
            "substitutions": list(setting.substitutions),
            "warnings": [] if prepared is None else list(prepared.warnings),
            "servable": list(self.needs),
            "problems": list(self.problems),
        }


def plan(
    recipe: Recipe,
    registry: Registry | None,
    *,
    gpu: str | None = None,
    batch_sizes: Sequence[int] = _BATCH_SIZES,
    others: bool = True,
) -> Plan:
    """The plan of `recipe` for the named GPU, or this machine. `others` adds LoRA and full over `batch_sizes`.

    Loads no weights and takes no step. Raises what finding base and data raises, and InvalidError for an unknown GPU
    or target module.
    """
    device = named_gpu(gpu) if gpu is not None else this_machine(recipe.precision)
    setting = find_setting(recipe, registry, device.cuda)
    added = len(setting.task.added_tokens)
    counts = count_parameters(setting.recipe, setting.shapes, setting.parameters, added)
    size = setting.recipe.optimisation.batch_size
    pace = _pace(setting, setting.recipe, device, here=gpu is None)
    memory, step, seconds = _cost(setting, setting.recipe, size, device, pace)
    record = known_base(recipe.base_like or recipe.base)
    base_rows = setting.shapes.rows if record is None else record.rows
    return Plan(
        setting=setting,
        device=device,
        counts=counts,
        schedule=setting.schedule(),
        memory=memory,
        step=step,
        seconds_per_step=seconds,
        alternatives=tuple(_alternatives(setting, device, batch_sizes, pace, here=gpu is None)) if others else (),
        needs=needs_of(setting.recipe, setting.shapes, added),
        problems=problems_of(setting.recipe, setting.shapes, base_rows, added),
    )


def _pace(setting: Setting, recipe: Recipe, device: Device, *, here: bool) -> Pace:
    batch = setting.largest_batch(recipe.optimisation.batch_size)
    attention = attention_for(recipe.precision, batch.length, packed=recipe.packing != "off", cuda=device.cuda)
    return pace_of(setting, recipe, device, attention, here=here)


def _cost(setting: Setting, recipe: Recipe, batch_size: int, device: Device, pace: Pace) -> tuple[Memory, Step, float]:
    """Memory, the largest batch's step, and seconds of an average optimizer step."""
    batch = setting.largest_batch(batch_size)
    attention = attention_for(recipe.precision, batch.length, packed=recipe.packing != "off", cuda=device.cuda)
    memory, step = estimate_memory(
        recipe,
        setting.config,
        setting.task,
        batch,
        attention=attention,
        file_bytes=setting.file_bytes,
        cuda=device.cuda,
    )
    examples = len(setting.lengths)
    share = batch_size * recipe.optimisation.gradient_accumulation_steps / examples
    tokens = share * sum(length for length, _ in setting.lengths)
    learned = share * sum(answer for _, answer in setting.lengths)
    length = sum(length for length, _ in setting.lengths) / examples
    return memory, step, pace.seconds(flops_per_step(setting, recipe, step.trained, tokens, learned, length))


def _alternatives(
    setting: Setting, device: Device, batch_sizes: Sequence[int], own: Pace, *, here: bool
) -> list[Alternative]:
    found = []
    mean = sum(length for length, _ in setting.lengths) / len(setting.lengths)
    for method in ("lora", "full"):
        recipe = _as_method(setting.recipe, method)
        pace = own if recipe is setting.recipe else _pace(setting, recipe, device, here=here)
        for size in batch_sizes:
            memory, _, seconds = _cost(setting, recipe, size, device, pace)
            tokens = size * recipe.optimisation.gradient_accumulation_steps * mean
            fits = memory.peak <= _HEADROOM * device.memory_bytes
            found.append(Alternative(method, size, memory.peak, round(tokens / seconds, 1), fits))
    return found


def _as_method(recipe: Recipe, method: str) -> Recipe:
    if recipe.method == method:
        return recipe
    publish = recipe.publish.model_copy(update={"merged": False})
    changes: dict[str, Any] = {"method": method, "quantization": None, "publish": publish}
    return recipe.model_copy(update=changes | {"lora": LoraSettings() if method == "lora" else None})
