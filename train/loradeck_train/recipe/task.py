"""The task in a recipe."""

from string import Formatter
from typing import Literal, Self

from pydantic import Field, model_validator

from loradeck_tasks.task import TaskKind
from loradeck_train.recipe.strict import NonEmpty, Strict


class TaskSettings(Strict):
    """The task that travels with the revision. What is unset comes from the kind's defaults."""

    kind: TaskKind
    format: Literal["chat", "plain", "blind"] = Field(
        default="chat",
        description="chat: the base's chat template; plain: nothing added; blind: question and answer behind one "
        "another between four new tokens, <START_Q> <END_Q> <START_A> <END_A>",
    )
    system: str | None = Field(default=None, description="system prompt; unset: the kind's, empty: none")
    template: NonEmpty | None = Field(default=None, description="user message with {field} placeholders")
    labels: Literal["from_data"] | tuple[NonEmpty, ...] = Field(
        default="from_data", description="classes in order; from_data: those in the training rows, sorted"
    )
    label_tokens: bool = Field(default=True, description="one new token per label, read off one forward pass")
    text_normalisation: Literal["sum", "mean"] = Field(default="mean", description="for labels scored as text")
    added_tokens: tuple[NonEmpty, ...] = Field(default=(), description="further new tokens, for example <sql>")
    initial_rows: Literal["description", "mean", "random"] = Field(
        default="description",
        description="start of a new token's rows: description: the mean of its description's token rows (a label's is "
        "its name; a token without one starts at the mean); mean: of all rows; random: normal, spread like the rows",
    )
    descriptions: dict[NonEmpty, NonEmpty] = Field(
        default_factory=dict, description="label or added token -> words that its rows start from"
    )
    stop: tuple[NonEmpty, ...] = Field(default=(), description="stop strings beside the end of turn")
    max_tokens: int | None = Field(default=None, ge=1, description="most tokens to generate; unset: the kind's")

    @model_validator(mode="after")
    def _labels_belong_to_classification(self) -> Self:
        if self.kind != "classification" and self.labels != "from_data":
            raise ValueError(f"`labels` belong to kind classification, not {self.kind}")
        if self.labels != "from_data" and len(set(self.labels)) < max(2, len(self.labels)):
            raise ValueError(f"`labels` are to be two or more, all different: {', '.join(self.labels) or 'none'}")
        return self

    @model_validator(mode="after")
    def _template_asks_about_the_row(self) -> Self:
        if self.template is None:
            return self
        try:
            fields = [name for _, name, _, _ in Formatter().parse(self.template) if name is not None]
        except ValueError as error:
            raise ValueError(f"`template` is no template ({error}); write a brace as {{{{ or }}}}") from error
        if not fields:
            raise ValueError("`template` names no {field} of the rows, so that every prompt would be the same")
        return self
