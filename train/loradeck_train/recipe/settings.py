"""The recipe: everything that decides a training run, as typed models. Parsed before torch is imported."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from loradeck_registry.reference import check_alias, check_name
from loradeck_tasks.task import TaskKind

NonEmpty = Annotated[str, StringConstraints(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSettings(_Strict):
    """Shape of the adapter. The scale is alpha / rank (LoRA, Hu et al. 2021)."""

    rank: int = Field(default=16, ge=1, le=512, description="rank of every module's A and B")
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout in front of A while training")
    target_modules: Literal["all-linear"] | tuple[NonEmpty, ...] = Field(
        default="all-linear", description="`all-linear` (all but the head), or leaf names such as q_proj"
    )


class Column(_Strict):
    """A field taken from a part of a column: the first group of `pattern`, searched in it."""

    column: NonEmpty
    pattern: NonEmpty = Field(description="regular expression with one group; a row without a match is an error")


class ValidationData(_Strict):
    """Rows held out of training: a source of its own, or a fraction of the training rows."""

    source: NonEmpty | None = Field(default=None, description="like data.source; unset: rows of data.source")
    split: NonEmpty | None = Field(default=None, description="split of a `datasets:` or `pocket:` source")
    fraction: float | None = Field(default=None, gt=0, le=0.5, description="share of the training rows to hold out")
    limit: int | None = Field(default=None, ge=1, description="use at most the first rows")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.fraction is not None) == (self.source is not None or self.split is not None):
            raise ValueError("set either `fraction`, or `source` and `split` (one of them or both)")
        return self


class DataSettings(_Strict):
    """Where rows come from, and which columns make the task's fields."""

    source: NonEmpty = Field(
        description="file (.jsonl, .csv, .parquet), `pocket:classification|qa|arithmetic`, or `datasets:NAME[/CONFIG]`"
    )
    split: NonEmpty = Field(default="train", description="split of a `datasets:` or `pocket:` source; files have none")
    columns: dict[str, NonEmpty | Column] = Field(
        default_factory=dict,
        description="task field or `answer` (`label` for classification) -> column; unset: the column of that name",
    )
    validation: ValidationData | None = None
    limit: int | None = Field(default=None, ge=1, description="use at most the first rows")


class TaskSettings(_Strict):
    """The task that travels with the revision. What is unset comes from the kind's defaults."""

    kind: TaskKind
    format: Literal["chat", "plain"] = "chat"
    system: str | None = Field(default=None, description="system prompt; unset: the kind's, empty: none")
    template: NonEmpty | None = Field(default=None, description="user message with {field} placeholders")
    labels: Literal["from_data"] | tuple[NonEmpty, ...] = Field(
        default="from_data", description="classes in order; from_data: those in the training rows, sorted"
    )
    label_tokens: bool = Field(default=True, description="one new token per label, read off one forward pass")
    text_normalisation: Literal["sum", "mean"] = Field(default="mean", description="for labels scored as text")
    added_tokens: tuple[NonEmpty, ...] = Field(default=(), description="further new tokens, for example <sql>")
    stop: tuple[NonEmpty, ...] = Field(default=(), description="stop strings beside the end of turn")
    max_tokens: int | None = Field(default=None, ge=1, description="most tokens to generate; unset: the kind's")

    @model_validator(mode="after")
    def _labels_belong_to_classification(self) -> Self:
        if self.kind != "classification" and self.labels != "from_data":
            raise ValueError(f"`labels` belong to kind classification, not {self.kind}")
        return self


class OptimisationSettings(_Strict):
    """AdamW (Loshchilov and Hutter 2019) and its schedule."""

    learning_rate: float = Field(gt=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="after the warm-up")
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_ratio: float | None = Field(default=None, ge=0, lt=1, description="share of all steps")
    epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1, description="optimizer steps")
    batch_size: int = Field(default=16, ge=1, description="examples per device and forward pass")
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    optimizer: Literal["adamw"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    max_grad_norm: float = Field(default=1.0, ge=0, description="gradient clipping; 0: none")

    @model_validator(mode="after")
    def _length_and_warmup(self) -> Self:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("set exactly one of `epochs` and `max_steps`, and the other to null")
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("set at most one of `warmup_steps` and `warmup_ratio`")
        return self


class CheckpointSettings(_Strict):
    """Checkpoints for --resume, in the output folder; removed when the run is complete."""

    save_steps: int | None = Field(default=None, ge=1, description="optimizer steps between two; unset: none are kept")
    keep: int = Field(default=2, ge=1)


class PublishSettings(_Strict):
    """How the result is stored."""

    name: str | None = Field(default=None, description="name in the registry; unset: not pushed")
    alias: str | None = Field(default=None, description="alias to move to the new revision")
    dtype: Literal["bfloat16", "float32"] = Field(default="bfloat16", description="the serving precision")
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


class Recipe(_Strict):
    """One training run. `base` and `data.source` can also come from the command line."""

    base: NonEmpty = Field(description="`name[@...]`, `hub:org/name[@revision]`, `dir:folder`, or `pocket:base`")
    method: Literal["lora", "full"]
    lora: LoraSettings | None = Field(default=None, description="for method lora; unset there: the defaults")
    data: DataSettings
    task: TaskSettings
    optimisation: OptimisationSettings
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="bf16: autocast to bfloat16, trained weights stay in float32; fp32: all float32"
    )
    max_length: int | None = Field(
        default=None, ge=8, description="tokens of prompt and answer; longer prompts are cut; unset: the base's context"
    )
    seed: int = Field(default=0, ge=0, lt=2**32)
    gradient_checkpointing: bool = Field(default=False, description="less memory, about a third more time")
    checkpoints: CheckpointSettings = CheckpointSettings()
    publish: PublishSettings = PublishSettings()

    @model_validator(mode="after")
    def _method_matches(self) -> Self:
        if self.method == "full" and self.lora is not None:
            raise ValueError("`lora` belongs to method lora; remove it for method full")
        return self

    @property
    def adapter(self) -> LoraSettings:
        """The adapter's shape, defaults applied."""
        return self.lora or LoraSettings()
