"""The optimisation's part of a recipe: optimizer, schedule, length, batches, checkpoints."""

from typing import Literal, Self

from pydantic import Field, model_validator

from loradeck_train.recipe.strict import Strict


class OptimisationSettings(Strict):
    """AdamW (Loshchilov and Hutter 2019) and its schedule."""

    learning_rate: float = Field(gt=0, lt=1)
    scheduler: Literal[
        "cosine", "linear", "constant", "cosine_with_restarts", "polynomial", "inverse_sqrt", "constant_with_warmup"
    ] = Field(default="cosine", description="after the warm-up; constant and constant_with_warmup are the same")
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_ratio: float | None = Field(default=None, ge=0, lt=1, description="share of all steps")
    epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1, description="optimizer steps")
    batch_size: int = Field(default=16, ge=1, description="examples per device and forward pass")
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    optimizer: Literal["adamw", "paged_adamw_8bit", "adamw_8bit", "paged_adamw_32bit", "adafactor", "sgd"] = Field(
        default="adamw", description="those of bitsandbytes (8bit, paged) need CUDA; elsewhere adamw takes their place"
    )
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


class CheckpointSettings(Strict):
    """Checkpoints for --resume, in the output folder; removed when the run is complete."""

    save_steps: int | None = Field(default=None, ge=1, description="optimizer steps between two; unset: none are kept")
    keep: int = Field(default=2, ge=1)
