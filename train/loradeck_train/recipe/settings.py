"""The recipe: everything that decides a training run, as typed models. Parsed before torch is imported."""

from typing import Literal, Self

from pydantic import Field, model_validator

from loradeck_registry.reference import check_alias, check_name
from loradeck_train.recipe.data import DataSettings
from loradeck_train.recipe.evaluation import EvaluationSettings
from loradeck_train.recipe.lora import LoraSettings, QuantizationSettings
from loradeck_train.recipe.optimisation import CheckpointSettings, OptimisationSettings
from loradeck_train.recipe.strict import NonEmpty, Strict
from loradeck_train.recipe.task import TaskSettings


class PublishSettings(Strict):
    """How the result is stored."""

    name: str | None = Field(default=None, description="name in the registry; unset: not pushed")
    alias: str | None = Field(default=None, description="alias to move to the new revision")
    dtype: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="the serving precision")
    merged: bool = Field(default=False, description="publish base and adapter as one full checkpoint")
    author: str | None = None
    reason: str = ""
    licence: str | None = Field(default=None, description="SPDX expression")
    probe_prompts: int = Field(default=6, ge=1, le=32)

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        if self.alias is not None and self.name is None:
            raise ValueError("`alias` needs `name`")
        if self.name is not None:
            check_name(self.name)
        if self.alias is not None:
            check_alias(self.alias)
        return self


class Recipe(Strict):
    """One training run. `base` and `data.source` can also come from the command line."""

    base: NonEmpty = Field(description="`name[@...]`, `hub:org/name[@revision]`, `dir:folder`, or `pocket:base`")
    base_like: NonEmpty | None = Field(
        default=None, description="a base of the same shapes, for `train plan` while `base` does not exist"
    )
    method: Literal["lora", "full"]
    lora: LoraSettings | None = Field(default=None, description="for method lora; unset there: the defaults")
    data: DataSettings
    task: TaskSettings
    optimisation: OptimisationSettings
    quantization: QuantizationSettings | None = Field(default=None, description="QLoRA: the frozen base in 4 bits")
    precision: Literal["bf16", "fp16", "fp32"] = Field(
        default="bf16",
        description="bf16: autocast to bfloat16, trained weights stay in float32; fp16: the same with a scaled loss, "
        "on CUDA only (elsewhere bf16 takes its place); fp32: all float32",
    )
    max_length: int | None = Field(
        default=None, ge=8, description="tokens of prompt and answer; longer prompts are cut; unset: the base's context"
    )
    loss: Literal["completion", "all"] = Field(
        default="completion", description="completion: on the answer; all: on prompt and answer"
    )
    packing: Literal["off", "batch", "fill"] = Field(
        default="off",
        description="off: padded, like lengths together; batch: the examples of a batch in one row without padding; "
        "fill: rows of max_length tokens filled by best fit, and batch_size counts rows. No attention across examples",
    )
    seed: int = Field(default=0, ge=0, lt=2**32)
    gradient_checkpointing: bool = Field(default=False, description="less memory, about a third more time")
    evaluation: EvaluationSettings = EvaluationSettings()
    tensorboard: bool = Field(default=False, description="write TensorBoard's files to the output folder as well")
    liger: bool = Field(default=False, description="Liger's fused kernels, on CUDA only (elsewhere torch's own)")
    checkpoints: CheckpointSettings = CheckpointSettings()
    publish: PublishSettings = PublishSettings()

    @model_validator(mode="after")
    def _evaluation_has_rows(self) -> Self:
        if self.evaluation.every_steps is not None and self.data.validation is None:
            raise ValueError("`evaluation.every_steps` needs `data.validation`")
        return self

    @model_validator(mode="after")
    def _method_matches(self) -> Self:
        if self.method == "full" and self.lora is not None:
            raise ValueError("`lora` belongs to method lora; remove it for method full")
        if self.method == "full" and (self.quantization or self.publish.merged):
            raise ValueError("`quantization` and `publish.merged` belong to method lora")
        if self.method == "lora" and self.quantization and self.adapter.init == "pissa":
            raise ValueError("`init: pissa` rewrites the base's weights, which `quantization` has rounded")
        return self

    @property
    def publishes(self) -> Literal["adapter", "full"]:
        """Kind of revision that comes out."""
        return "adapter" if self.method == "lora" and not self.publish.merged else "full"

    @property
    def lossy(self) -> bool:
        """Whether what is published is only near to what was trained: DoRA is cut to LoRA, QLoRA's base was rounded to
        4 bits while the one that is served is not, and the sums of a merge are rounded to bfloat16."""
        return self.method == "lora" and (
            self.quantization is not None
            or (self.publish.dtype != "float32" if self.publish.merged else self.adapter.dora)
        )

    @property
    def adapter(self) -> LoraSettings:
        """The adapter's shape, defaults applied."""
        return self.lora or LoraSettings()
