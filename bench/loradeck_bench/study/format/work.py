"""What a study does: bases, data, trainings, servers, evaluations."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from loradeck_bench.study.format.strict import Name, Settings, Strict, Text

Task = Literal["classification", "short_qa", "long_qa", "generate"]
Split = Literal["train", "validation", "test"]


class Base(Strict):
    """A base model, stored in the study's registry under its name."""

    source: Text = Field(description="`hub:org/name[@revision]`, `dir:folder`, or `pocket:base`")
    reserve_tokens: int | None = Field(default=None, ge=0, description="rows for new tokens, if the base lacks them")


class Source(Strict):
    """One place that a data set may come from."""

    train: Text | None = Field(default=None, description="file below the study's data folder, `pocket:…`, `datasets:…`")
    validation: Text | None = None
    test: Text | None = None
    database: Text | None = Field(
        default=None, description="SQLite file that its queries run on, for options: --database ${NAME.database}"
    )
    columns: dict[Text, Text] = Field(default_factory=dict, description="for evaluations: field -> column[:pattern]")
    set: Settings = Field(default_factory=dict, description="recipe keys that go with this source")
    note: str = Field(default="", description="what to know of it; stands in the report")

    def of(self, split: Split) -> str | None:
        """The file of a split, None if it has none."""
        value = getattr(self, split)
        return str(value) if value is not None else None


class DataSet(Strict):
    """A data set: the first of its sources that is there is used. `pocket:` sets always are."""

    what: Text = Field(description="name, size, licence")
    sources: tuple[Source, ...] = Field(min_length=1)
    get: str | None = Field(
        default=None, description="command that brings it; unset: loradeck study data STUDY --fetch"
    )
    cut: dict[Split, float] = Field(
        default_factory=dict, description="shares of the training file that are taken out as further splits"
    )

    @model_validator(mode="after")
    def _cut_leaves_rows(self) -> Self:
        if "train" in self.cut or any(share <= 0 for share in self.cut.values()) or sum(self.cut.values()) >= 1:
            raise ValueError("shares of `cut` must be over 0 and below 1 together")
        return self


class Step(Strict):
    """What can be done, kept, and left out."""

    title: str = Field(default="", description="how people call it; unset: its name")
    seconds: float | None = Field(default=None, gt=0, description="expected, on two cores")


class Run(Step):
    """One `loradeck train run`, published under the run's name."""

    recipe: Text = Field(description="shipped recipe, or a file beside the study file")
    base: Text | None = Field(default=None, description="name of a base, or run:NAME; unset: the first base")
    data: Name | None = Field(default=None, description="data set whose training split is used; unset: the recipe's")
    set: Settings = Field(default_factory=dict, description="recipe keys that differ")
    needs: tuple[Text, ...] = Field(default=(), description="Python packages; without one the run is left out")
    get: str = Field(default="", description="how to get what it needs")


class Server(Strict):
    """One `loradeck serve`, up while the evaluations that name it are asked."""

    base: Text = Field(description="name of a base, or run:NAME of a full checkpoint")
    set: Settings = Field(default_factory=dict, description="server settings that differ")


class Served(Step):
    """`loradeck eval run`: quality of a served adapter, full checkpoint or base."""

    kind: Literal["served"] = "served"
    server: Name
    of: Name | None = Field(default=None, description="run; unset: the base, or the full checkpoint served as it")
    task: Task
    data: Name
    split: Split = "test"
    limit: int | None = Field(default=None, ge=1)
    metrics: tuple[Text, ...] = ()
    concurrency: int = Field(default=16, ge=1, le=512)
    max_tokens: int | None = Field(default=None, ge=1)
    template: str | None = Field(default=None, description="generate, base: its message with {field} placeholders")
    embedding: bool = Field(default=False, description="BERTScore and similarity too, if --embedding-model is given")
    options: tuple[str, ...] = Field(default=(), description="further options of eval run, such as --database")


class Loss(Step):
    """`loradeck eval loss`: loss, perplexity, bits, token accuracy of the references, without a server."""

    kind: Literal["loss"]
    of: Name | None = Field(default=None, description="run; unset: the base")
    base: Text | None = None
    task: Task
    data: Name
    split: Split = "test"
    limit: int | None = Field(default=None, ge=1)
    over: Literal["answer", "all"] = "answer"
    max_length: int | None = Field(default=None, ge=2)


class Judged(Step):
    """`loradeck eval judge` on the answers of a served evaluation; left out unless an endpoint is given."""

    kind: Literal["judge"]
    of: Name = Field(description="a served evaluation")
    options: tuple[str, ...] = ()


class Compared(Step):
    """`loradeck eval compare`: paired tests, the first evaluation against each of the others."""

    kind: Literal["compare"]
    of: tuple[Name, ...] = Field(min_length=2)
    metrics: tuple[Text, ...] = ()


class Command(Step):
    """Any other `loradeck` command that takes `--json PATH`. `${registry}` is the study's registry."""

    kind: Literal["command"]
    command: tuple[str, ...] = Field(min_length=1)
    after: tuple[Name, ...] = Field(default=(), description="runs that must be there")


Evaluation = Annotated[Served | Loss | Judged | Compared | Command, Field(discriminator="kind")]
