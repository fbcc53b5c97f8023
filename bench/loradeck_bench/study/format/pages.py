"""What a study shows: tables and figures, whose cells are taken from results by path.

A path names a result and keys in it, with `/` between them: `runs/NAME/…`, `evaluations/NAME/…`, `data/NAME/…`. An
entry of a list is named by its number, or by its `name` (a class of a classification report). What runs offer beside
the report of `train run` is in `loradeck_bench.study.results`.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from loradeck_bench.study.format.strict import Path, Strict, Text

Show = Literal["number", "integer", "percent", "bytes", "gib", "duration", "hours", "minutes", "text"]
PATH_IN_TEXT = re.compile(r"\$\{([^}]+)\}")


class Column(Strict):
    """A column of values. The first column of every table is the rows' names."""

    name: Text
    of: Path | None = None
    key: Path | None = None
    show: Show | None = None
    digits: int | None = Field(default=None, ge=0, le=6, description="after the point; unset: 3")


class Cell(Strict):
    """A cell that is made differently from its row and column."""

    of: Path | None = None
    key: Path | None = None
    show: Show | None = None
    over: Path | None = Field(default=None, description="path of what the value is divided by")
    text: str | None = Field(default=None, description="what stands there; `${path}` is the value at that path")


class Row(Strict):
    """A row. The path of a cell is `of` of the row (else of the column), then the row's key, then the column's."""

    name: Text
    of: Path | None = None
    key: Path | None = None
    show: Show | None = None
    digits: int | None = Field(default=None, ge=0, le=6)
    differs: str = Field(default="", description="what differs from the published row")
    cells: dict[Text, Cell] = Field(default_factory=dict, description="column name -> its cell")


class Each(Strict):
    """Rows that are not known before: one for each entry of a result that is a list or a map."""

    of: Path
    name: Text = Field(description="`{key}` is the entry's value there; `{name}` its key in a map")
    where: dict[Text, Text] = Field(default_factory=dict, description="key -> text that an entry must have there")


class Table(Strict):
    """A table in the layout of the publication. Published values are looked up by its id, row and column names."""

    id: Text
    title: Text
    corner: str = Field(default="", description="head of the first column")
    columns: tuple[Column, ...] = Field(min_length=1)
    rows: tuple[Row, ...] = ()
    each: Each | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if not self.rows and self.each is None:
            raise ValueError("a table needs `rows` or `each`")
        columns = {column.name for column in self.columns}
        for row in self.rows:
            if unknown := set(row.cells) - columns:
                raise ValueError(f"row {row.name!r} has cells in columns that are not there: {', '.join(unknown)}")
        return self


class Group(Strict):
    """A group of bars: one metric."""

    name: Text
    key: Path
    published: str = Field(default="", description="end of the published values' path, behind the series' own")


class Series(Strict):
    """One model's bars. Published values are drawn as marks: part, row and column of each, with `/` between them."""

    name: Text
    of: Path
    published: str = Field(default="", description="start of their path: `table-7`, or `table-10/ROW`")


class Curve(Strict):
    """One line: `key` is a list of entries with the keys `x` and `y`."""

    name: Text
    of: Path
    key: Path = "loss_history"
    x: Text = "step"
    y: Text = "loss"


class Point(Strict):
    """One point of a line; `x` and `y` are numbers, or keys below `of`."""

    of: Path
    x: float | Path
    y: float | Path


class Line(Strict):
    """A line through results of different runs."""

    name: Text
    points: tuple[Point, ...] = Field(min_length=1)


class _Figure(Strict):
    id: Text
    title: Text
    notes: tuple[str, ...] = ()
    y_label: str = ""


class Bars(_Figure):
    """Bars by group and series, with whiskers where the result has intervals, and published values as marks."""

    kind: Literal["bars"]
    groups: tuple[Group, ...] = Field(min_length=1)
    series: tuple[Series, ...] = Field(min_length=1)


class Curves(_Figure):
    """Lines of what was recorded during runs."""

    kind: Literal["curves"]
    series: tuple[Curve, ...] = Field(min_length=1)
    x_label: str = "step"
    log_y: bool = False


class Points(_Figure):
    """Lines through points, each of a run of its own."""

    kind: Literal["points"]
    series: tuple[Line, ...] = Field(min_length=1)
    x_label: str = ""
    log_x: bool = False


class Absent(_Figure):
    """A figure that cannot be made; its notes say why."""

    kind: Literal["absent"]


Figure = Annotated[Bars | Curves | Points | Absent, Field(discriminator="kind")]


class Card(Strict):
    """A figure at the top of the report."""

    label: Text
    of: Path
    key: Path
    show: Show | None = None
    digits: int | None = None
    note: str = ""
