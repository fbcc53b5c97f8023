"""What a recipe measures while it trains."""

from typing import Self

from pydantic import Field, model_validator

from loradeck_train.recipe.strict import NonEmpty, Strict


class EvaluationSettings(Strict):
    """Validation loss on the way, the best weights, the end of a run that gets no better, and what was forgotten."""

    every_steps: int | None = Field(
        default=None, ge=1, description="steps between two looks at data.validation; unset: at the end only"
    )
    keep_best: bool = Field(default=True, description="publish the weights of the lowest validation loss")
    patience: int | None = Field(
        default=None, ge=1, description="stop after this many looks without an improvement; unset: never"
    )
    min_improvement: float = Field(default=0.0, ge=0, description="nats that count as one")
    forgetting: NonEmpty | None = Field(
        default=None,
        description="general text (a file with a column `text`, or of plain text): the base's perplexity on it before "
        "and after training",
    )

    @model_validator(mode="after")
    def _patience_needs_looks(self) -> Self:
        if self.patience is not None and self.every_steps is None:
            raise ValueError("`patience` needs `every_steps`")
        return self
