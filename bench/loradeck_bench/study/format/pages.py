"""What a study shows: tables and figures, whose cells are taken from results by path.

A path names a result and keys in it, with `/` between them: `runs/NAME/…`, `evaluations/NAME/…`, `data/NAME/…`. An
entry of a list is named by its number, or by its `name` (a class of a classification report). What runs offer beside
the report of `train run` is in `loradeck_bench.study.results`.
"""

from typing import Annotated, Literal

from pydantic import Field

from loradeck_bench.study.format.strict import Path, Strict, Text

Show = Literal["number", "integer", "percent", "bytes", "gib", "duration", "hours", "minutes", "text"]


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
    text: str | None = Field(default=None, description="what stands there instead of a measurement")


class Row(Strict):
    """A row. The path of a cell is `of` of the row (else of the column), then the row's key, then the column's."""

    name: Text
    of: Path | None = None
    key: Path | None = None
    show: Show | None = None
    digits: int | None = Field(default=None, ge=0, le=6)
    differs: str = Field(default="", description="what differs from the published row")
    cells: dict[Text, Cell] = Field(default_factory=dict, description="column name -> its cell")


class Table(Strict):
    """A table in the layout of the publication. Published values are looked up by its id, row and column names."""

    id: Text
    title: Text
    corner: str = Field(default="", description="head of the first column")
    columns: tuple[Column, ...] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()


class Group(Strict):
    """A group of bars: one metric."""

    name: Text
    key: Path


class Series(Strict):
    """One model's bars."""

    name: Text
    of: Path


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
    """Bars by group and series, with whiskers where the result has intervals, and published values as marks.

    A published value is looked up at the figure's id, the series' name as row and the group's name as column.
    """

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
