"""Where a recipe's rows come from."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from loradeck_tasks.row_files import READERS
from loradeck_train.recipe.strict import NonEmpty, Strict
from loradeck_train.recipe.task import TaskSettings


class Column(Strict):
    """A field taken from a part of a column: the first group of `pattern`, searched in it."""

    column: NonEmpty
    pattern: NonEmpty = Field(description="regular expression with one group; a row without a match is an error")


class ValidationData(Strict):
    """Rows held out of training: a source of its own, or a fraction of the training rows."""

    source: NonEmpty | None = Field(default=None, description="like data.source; unset: rows of data.source")
    split: NonEmpty | None = Field(default=None, description="split of a folder, `pocket:` or `datasets:` source")
    fraction: float | None = Field(default=None, gt=0, le=0.5, description="share of the training rows to hold out")
    limit: int | None = Field(default=None, ge=1, description="use at most the first rows")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.fraction is not None) == (self.source is not None or self.split is not None):
            raise ValueError("set either `fraction`, or `source` and `split` (one of them or both)")
        return self


class ExpectedData(Strict):
    """Size of a set that is not at hand, as its source states it: `train plan` counts with it."""

    rows: int = Field(ge=1)
    tokens_per_row: int = Field(ge=1, description="prompt and answer, on average")
    answer_tokens: int = Field(default=1, ge=1, description="of these, in the answer")
    labels: int = Field(default=0, ge=0, description="classes of a classification")


class MixtureData(Strict):
    """Rows of another task that is trained along. The revision is published with the main task alone."""

    source: NonEmpty = Field(description="like data.source")
    split: NonEmpty = "train"
    columns: dict[str, NonEmpty | Column] = Field(default_factory=dict, description="like data.columns")
    limit: int | None = Field(default=None, ge=1, description="use at most the first rows")
    weight: float = Field(
        default=1.0, gt=0, description="how often each row comes per epoch: 2 is twice, 0.5 is a random half of them"
    )
    task: TaskSettings

    @model_validator(mode="after")
    def _adds_no_tokens(self) -> Self:
        if self.task.added_tokens or self.task.format == "blind":
            raise ValueError("new tokens (`added_tokens`, format blind) belong to the main task only")
        return self


class DataSettings(Strict):
    """Where rows come from, and which columns make the task's fields."""

    source: NonEmpty = Field(
        description="file (.jsonl, .csv, .parquet), a folder of splits, a set of the project (`pocket:` and "
        "classification, qa, arithmetic, sums, instructions, meanings, queries, gsm8k or wikisql), or "
        "`datasets:NAME[/CONFIG]`"
    )
    split: NonEmpty = Field(
        default="train", description="split of a folder, `pocket:` or `datasets:` source; files have none"
    )
    columns: dict[str, NonEmpty | Column] = Field(
        default_factory=dict,
        description="task field or `answer` (`label` for classification) -> column; unset: the column of that name",
    )
    expected: ExpectedData | None = Field(default=None, description="for `train plan` where the source is not there")
    validation: ValidationData | None = None
    test: ValidationData | None = Field(default=None, description="held out as well; its loss is measured at the end")
    leakage: Literal["report", "refuse", "off"] = Field(
        default="report",
        description="held-out rows that also stand in the training rows, whole or by 13 words in a row",
    )
    limit: int | None = Field(default=None, ge=1, description="use at most the first rows")
    weight: float = Field(default=1.0, gt=0, description="of these rows in a mixture, as `mixture.weight`")
    mixture: tuple[MixtureData, ...] = Field(default=(), description="rows of other tasks that are trained along")
    streaming: bool = Field(
        default=False, description="keep rows and token ids on the disk: for sets larger than the memory"
    )

    @model_validator(mode="after")
    def _files_have_no_splits(self) -> Self:
        """A split of a file would be the whole file: the training rows, for those to be held out."""
        held_out = [part for part in (self.validation, self.test) if part is not None]
        asked = [(part.source or self.source, part.split) for part in held_out]
        if self.split != "train":
            asked.append((self.source, self.split))
        asked += [(part.source, part.split) for part in self.mixture if part.split != "train"]
        for source, split in asked:
            if split is not None and Path(source).suffix in READERS and not source.startswith("datasets:"):
                raise ValueError(
                    f"{Path(source).name} is one file and has no split `{split}`: name a file of its own, "
                    "a folder with a file per split, or for held-out rows a `fraction`"
                )
        return self
